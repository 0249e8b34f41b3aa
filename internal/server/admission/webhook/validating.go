package webhook

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/knarr-io/knarr/internal/server/admission"
)

// validating is the plugin that asks validating webhooks, all at the same time.
type validating struct{ *Webhooks }

// Name implements admission.Plugin.
func (validating) Name() string { return "ValidatingAdmissionWebhook" }

// Remote implements admission.Remote.
func (v validating) Remote() bool { return v.validating.any() }

// Admit implements admission.Plugin.
func (validating) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (v validating) Validate(ctx context.Context, a *admission.Attributes) error {
	hooks := v.asked(ctx, a, v.validating)
	if len(hooks) == 0 {
		return nil
	}
	w, within, cancel := v.begin(ctx, a, false)
	defer cancel()
	return w.validate(within, hooks)
}

// validate asks those of the webhooks that are to be asked, and returns what the first of them that has something against the write says.
func (w *write) validate(ctx context.Context, hooks []*hook) error {
	var chosen []*hook
	var versions []*version
	for _, h := range hooks {
		in, err := w.choose(ctx, h)
		if err != nil {
			return err
		}
		if in != nil {
			chosen, versions = append(chosen, h), append(versions, in)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return errTooLate()
	}
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	errs := make([]error, len(chosen))
	var wg sync.WaitGroup
	for i, h := range chosen {
		wg.Go(func() {
			began := time.Now()
			_, err := w.ask(ctx, h, versions[i], share(h.timeout, left, h.ignore, 0))
			w.observe(h, time.Since(began), err)
			if err != nil {
				errs[i] = w.settle(ctx, h, err, fmt.Sprintf("validating.webhook.admission.k8s.io/round_0_index_%d", i))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
