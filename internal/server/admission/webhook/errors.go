package webhook

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// callError is a webhook that could not be asked, or did not answer as it should: its failure policy decides.
type callError struct {
	webhook string
	reason  error
	code    int32 // for metrics
}

// Error words it as kube-apiserver does.
func (e *callError) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", e.webhook, e.reason)
}

// Unwrap is for errors.Is.
func (e *callError) Unwrap() error { return e.reason }

// refusal is a webhook's answer that a write is not to be.
type refusal struct{ *apierrors.StatusError }

// Unwrap is for errors.As.
func (r refusal) Unwrap() error { return r.StatusError }

// refused makes the status of a refusal of what the webhook gives as the reason.
func refused(webhook string, result *metav1.Status) refusal {
	st := metav1.Status{}
	if result != nil {
		st = *result
	}
	st.Code = max(st.Code, http.StatusBadRequest)
	if st.Status == "" || st.Status == metav1.StatusSuccess {
		st.Status = metav1.StatusFailure
	}
	by := fmt.Sprintf("admission webhook %q denied the request", webhook)
	switch {
	case st.Message != "":
		st.Message = by + ": " + st.Message
	case st.Reason != "":
		st.Message = by + ": " + string(st.Reason)
	default:
		st.Message = by + " without explanation"
	}
	return refusal{&apierrors.StatusError{ErrStatus: st}}
}

// errNoDryRun is the answer to a dry run that a webhook with side effects would have to be asked about.
func errNoDryRun(webhook string) error {
	return apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", webhook))
}

// errTooLate is the answer to a write whose time is over.
func errTooLate() error {
	return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
}
