package policy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"

	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/cel"
)

const (
	// failuresKey is the audit annotation that lists what bindings with the action Audit would have refused.
	failuresKey = "validation.policy.admission.k8s.io/validation_failure"
	// mostFailures bounds what it lists, maxAnnotation the length of a policy's own annotation.
	mostFailures  = 50
	maxAnnotation = 10 << 10
)

// outcome is what all ValidatingAdmissionPolicies say about a write together.
type outcome struct {
	denied      []denial
	warnings    []string
	failures    []failure
	annotations map[string][]string // by policy/key
	seen        []observation
}

// denial is a reason to refuse a write.
type denial struct {
	policy, binding string // binding is empty where the policy itself is broken
	message         string
	reason          metav1.StatusReason
}

// failure is one entry of the audit annotation at failuresKey.
type failure = validating.ValidationFailureValue

// observation is what the metrics count.
type observation struct {
	policy, binding, trouble, action string
	took                             time.Duration
}

// broken notes that a policy or a binding of it could not be applied. What ignores failures goes on without.
func (o *outcome) broken(policy string, b *binding, ignored bool, err error) {
	switch {
	case ignored:
	case b == nil:
		o.denied = append(o.denied, denial{policy: policy, message: fmt.Sprintf("failed to configure policy: %v", err)})
	default:
		o.denied = append(o.denied, denial{policy: policy, binding: b.name, message: fmt.Sprintf("failed to configure binding: %v", err)})
	}
}

// add notes what a policy says, for one parameter of one binding.
func (o *outcome) add(policy string, b *binding, v cel.Verdict) {
	for i, d := range v.Decisions {
		if d.Action == validating.ActionAdmit {
			if d.Evaluation == validating.EvalError {
				o.see(policy, b, &d, "allow")
			}
			continue
		}
		for _, action := range b.actions {
			switch action {
			case admissionregistrationv1.Deny:
				o.denied = append(o.denied, denial{policy, b.name, d.Message, d.Reason})
			case admissionregistrationv1.Warn:
				o.warnings = append(o.warnings, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", policy, b.name, d.Message))
			case admissionregistrationv1.Audit:
				o.failures = append(o.failures, failure{Message: d.Message, Policy: policy, Binding: b.name, ExpressionIndex: i, ValidationActions: b.actions})
			}
			o.see(policy, b, &d, strings.ToLower(string(action)))
		}
	}
	for _, a := range v.AuditAnnotations {
		o.annotate(policy, b, a)
	}
}

// annotate notes an audit annotation. Different values of several bindings or parameters stand beside each other.
func (o *outcome) annotate(policy string, b *binding, a validating.PolicyAuditAnnotation) {
	switch a.Action {
	case validating.AuditAnnotationActionPublish:
		value, key := a.Value, policy+"/"+a.Key
		if len(value) > maxAnnotation {
			value = value[:maxAnnotation]
		}
		if o.annotations == nil {
			o.annotations = map[string][]string{}
		}
		if !slices.Contains(o.annotations[key], value) {
			o.annotations[key] = append(o.annotations[key], value)
		}
	case validating.AuditAnnotationActionError:
		o.denied = append(o.denied, denial{policy: policy, binding: b.name, message: a.Error})
		o.see(policy, b, &validating.PolicyDecision{Evaluation: validating.EvalError, Message: a.Error, Elapsed: a.Elapsed}, "deny")
	}
}

func (o *outcome) see(policy string, b *binding, d *validating.PolicyDecision, action string) {
	trouble := "no_error"
	if d.Evaluation == validating.EvalError {
		trouble = troubleOf(d.Message)
	}
	o.seen = append(o.seen, observation{policy, b.name, trouble, action, d.Elapsed})
}

// troubleOf names a kind of error as Kubernetes' metrics do.
func troubleOf(message string) string {
	switch {
	case strings.HasPrefix(message, "compilation"):
		return "compile_error"
	case strings.HasPrefix(message, "validation failed due to running out of cost budget"):
		return "out_of_budget"
	}
	return "invalid_error"
}

// audit returns the audit annotations of the write.
func (o *outcome) audit() map[string]string {
	out := map[string]string{}
	for key, values := range o.annotations {
		out[key] = strings.Join(values, ", ")
	}
	if len(o.failures) > 0 {
		if text, err := json.Marshal(o.failures[:min(len(o.failures), mostFailures)]); err == nil {
			out[failuresKey] = string(text)
		}
	}
	return out
}

// refusal returns the error of a write that is refused, or nil. The first reason is the message.
func (o *outcome) refusal(a *admission.Attributes) error {
	if len(o.denied) == 0 {
		return nil
	}
	d := o.denied[0]
	message := fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", d.policy, d.message)
	if d.binding != "" {
		message = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", d.policy, d.binding, d.message)
	}
	err := forbidden(a, message)
	err.ErrStatus.Reason = metav1.StatusReasonInvalid
	if d.reason != "" {
		err.ErrStatus.Reason = d.reason
	}
	err.ErrStatus.Code = codeOf(err.ErrStatus.Reason)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: message})
	return err
}

func codeOf(reason metav1.StatusReason) int32 {
	switch reason {
	case metav1.StatusReasonForbidden:
		return http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		return http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}

// problem is what went wrong with a MutatingAdmissionPolicy that does not ignore failures.
type problem struct {
	policy, binding string
	err             error
	reason          metav1.StatusReason
}

// String says it as kube-apiserver does.
func (p *problem) String() string {
	if p.binding == "" {
		return fmt.Sprintf("policy %q denied request: %s", p.policy, p.err)
	}
	return fmt.Sprintf("policy '%s' with binding '%s' denied request: %s", p.policy, p.binding, p.err)
}

// refusedBy returns the error of a write for which MutatingAdmissionPolicies could not be applied, or nil.
func refusedBy(a *admission.Attributes, problems []problem) error {
	if len(problems) == 0 {
		return nil
	}
	var err *apierrors.StatusError
	for i := range problems {
		p := &problems[i]
		if err == nil {
			err = forbidden(a, "")
			err.ErrStatus.Message = p.String()
			if p.reason != "" {
				err.ErrStatus.Reason = p.reason
			}
		}
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: p.String()})
	}
	return err
}
