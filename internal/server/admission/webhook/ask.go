package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"

	client "github.com/knarr-io/knarr/internal/server/hook"
)

// ask sends a webhook the write and returns its answer, which allows it; nil where the webhook is not to be asked, as its back end is dead
// and the write heals it. limit is how long it may take. The errors are a *callError, a refusal, or else an API status.
func (w *write) ask(ctx context.Context, h *hook, v *version, limit time.Duration) (*admissionv1.AdmissionResponse, error) {
	if w.a.DryRun {
		if h.sideEffects == nil {
			return nil, &callError{h.name, errors.New("Webhook SideEffects is nil"), http.StatusBadRequest}
		}
		if !h.withoutEffects() {
			return nil, errNoDryRun(h.name)
		}
	}
	if h.broken != nil {
		return nil, &callError{h.name, fmt.Errorf("could not get REST client: %w", h.broken), http.StatusInternalServerError}
	}
	if h.version() == "" {
		reason := errors.New("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)")
		return nil, &callError{h.name, reason, http.StatusBadRequest}
	}
	if w.heals(ctx, h) {
		return nil, nil
	}
	review, err := w.review(v, h.version())
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	answer := &admissionv1.AdmissionReview{}
	if err := w.post(ctx, h, limit, review, answer); err != nil {
		return nil, &callError{h.name, fmt.Errorf("failed to call webhook: %w", err), codeOf(err)}
	}
	if err := verify(review, answer, w.mutating); err != nil {
		return nil, &callError{h.name, fmt.Errorf("received invalid webhook response: %w", err), http.StatusServiceUnavailable}
	}
	r := answer.Response
	for k, text := range r.AuditAnnotations {
		if key := h.name + "/" + k; len(validation.IsQualifiedName(key)) == 0 {
			audit.AddAuditAnnotation(ctx, key, text)
		}
	}
	for _, text := range r.Warnings {
		warning.AddWarning(ctx, "", text)
	}
	if !r.Allowed {
		return nil, refused(h.name, r.Result)
	}
	return r, nil
}

// post asks a webhook, unless it has failed so often that it is left alone for a while.
func (w *write) post(ctx context.Context, h *hook, limit time.Duration, review, answer *admissionv1.AdmissionReview) error {
	if err := h.breaker.admit(time.Now()); err != nil {
		return err
	}
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := h.client.Post(bounded, limit.Truncate(time.Second)+roundUp(limit), review, answer)
	var unexpected *client.StatusError
	switch {
	case err == nil, errors.As(err, &unexpected): // it is there, whatever it says
		if h.breaker.succeeded() {
			w.announce(h, nil)
		}
	case ctx.Err() != nil && limit < h.timeout, errors.Is(ctx.Err(), context.Canceled): // it was not given the time that it may take
		h.breaker.released()
	case h.breaker.failed(time.Now(), err):
		w.announce(h, err)
	}
	if errors.As(err, &unexpected) {
		return apierrors.NewGenericServerResponse(unexpected.Code, http.MethodPost, schema.GroupResource{}, "", unexpected.Body, 0, true)
	}
	if err != nil {
		w.cfg.Log.Warn("a webhook did not answer", "webhook", h.name, "at", h.backend(), "took", time.Since(began).Round(time.Millisecond), "err", err)
	}
	return err
}

// roundUp is what makes a limit whole seconds, in which webhooks are told it.
func roundUp(limit time.Duration) time.Duration {
	if limit%time.Second == 0 {
		return 0
	}
	return time.Second
}

// codeOf is the code of a failure in metrics.
func codeOf(err error) int32 {
	if st := apierrors.APIStatus(nil); errors.As(err, &st) {
		return st.Status().Code
	}
	return http.StatusServiceUnavailable
}

// observe counts what came of asking a webhook.
func (w *write) observe(h *hook, took time.Duration, err error) {
	op := w.a.Operation
	var failed *callError
	var no refusal
	switch {
	case err == nil:
		w.metrics.called(h, w.mutating, op, took, http.StatusOK, false)
	case errors.As(err, &failed):
		if !h.ignore && !errors.Is(err, context.Canceled) {
			w.metrics.rejected(h, w.mutating, op, callingError, failed.code)
		}
		w.metrics.called(h, w.mutating, op, took, failed.code, !h.ignore)
	case errors.As(err, &no):
		w.metrics.rejected(h, w.mutating, op, noError, no.ErrStatus.Code)
		w.metrics.called(h, w.mutating, op, took, no.ErrStatus.Code, true)
	default:
		w.metrics.rejected(h, w.mutating, op, internalError, 0)
		w.metrics.called(h, w.mutating, op, took, 0, true)
	}
}

// settle returns what follows from an error of ask: nil where the failure of the webhook is to be passed over.
func (w *write) settle(ctx context.Context, h *hook, err error, annotation string) error {
	var failed *callError
	var no refusal
	switch {
	case errors.As(err, &no):
		return no.StatusError
	case !errors.As(err, &failed):
		return err
	case !h.ignore:
		return apierrors.NewInternalError(failed)
	}
	if !errors.Is(err, context.Canceled) {
		w.metrics.failedOpen.WithLabelValues(h.name, metricType(w.mutating)).Inc()
		audit.AddAuditAnnotation(ctx, "failed-open."+annotation, h.name)
	}
	return nil
}
