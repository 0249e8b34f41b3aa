// Package webhook asks the admission webhooks that MutatingWebhookConfigurations and ValidatingWebhookConfigurations name about writes
// (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/).
//
// What flows through it: [Webhooks] reads the configurations from the shared copy and compiles those that changed, when a write comes. A write that
// a webhook chooses (package match, and its match conditions) becomes an AdmissionReview in the version that the webhook's rule names.
// [Mutating] asks one webhook after the other and applies their patches; [Validating] asks all of them at the same time.
//
// What must stay true: without configurations a write costs a look at two empty tables (TestNothingConfigured). Messages, codes and what
// follows from a failure are kube-apiserver's (TestFailures, TestAnswers). All webhooks of one write share its deadline
// (TestDeadlineIsShared). A webhook whose back end is dead is in nobody's way who heals it, and nobody else gains from that
// (TestHealing, docs/adr/0011-dead-webhooks.md); one that hangs is asked rarely (TestBreaker).
package webhook
