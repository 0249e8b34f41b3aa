package namespace

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/aggregate"
)

// remains is what stands in the way of a namespace's end.
type remains struct {
	objects    map[string]int // by RESOURCE.GROUP
	finalizers map[string]int // by name
	errs       []error
	// undiscovered are group-versions of other API servers that do not say what they hold.
	undiscovered []string
}

func newRemains() *remains {
	return &remains{objects: map[string]int{}, finalizers: map[string]int{}}
}

func (r *remains) any() bool { return len(r.objects) > 0 || len(r.errs) > 0 || len(r.undiscovered) > 0 }

// add adds what other API servers hold.
func (r *remains) add(left aggregate.Left) {
	maps.Copy(r.objects, left.Objects)
	for f, n := range left.Finalizers {
		r.finalizers[f] += n
	}
	r.errs = append(r.errs, left.Errs...)
	r.undiscovered = append(r.undiscovered, left.Undiscovered...)
}

func (r *remains) err() error { return errors.Join(r.errs...) }

func (r *remains) fail(err error) { r.errs = append(r.errs, err) }

func (r *remains) count(res *api.Resource, objs []api.Object) {
	if len(objs) == 0 {
		return
	}
	r.objects[res.Plural+"."+res.Group] = len(objs)
	for _, o := range objs {
		for _, f := range o.GetFinalizers() {
			r.finalizers[f]++
		}
	}
}

// conditions brings the conditions of a namespace that is being deleted up to date. Types, reasons and the form of the messages
// are Kubernetes', as tools read them.
func (r *remains) conditions(old []corev1.NamespaceCondition, now time.Time) (out []corev1.NamespaceCondition, changed bool) {
	out = slices.Clone(old)
	set := func(t corev1.NamespaceConditionType, bad bool, okReason, okMessage, reason, message string) {
		c := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: okReason, Message: okMessage, LastTransitionTime: metav1.NewTime(now)}
		if bad {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, reason, message
		}
		i := slices.IndexFunc(out, func(o corev1.NamespaceCondition) bool { return o.Type == t })
		if i < 0 {
			out, changed = append(out, c), true
			return
		}
		if was := out[i]; was.Status != c.Status || was.Reason != c.Reason || was.Message != c.Message {
			if was.Status == c.Status {
				c.LastTransitionTime = was.LastTransitionTime
			}
			out[i], changed = c, true
		}
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, len(r.undiscovered) > 0, "ResourcesDiscovered", "All resources successfully discovered",
		"DiscoveryFailed", fmt.Sprintf("Discovery failed for some groups, %d failing: unable to retrieve the complete list of server APIs: %s",
			len(r.undiscovered), r.undiscoveredText()))
	set(corev1.NamespaceDeletionGVParsingFailure, false, "ParsedGroupVersions", "All legacy kube types successfully parsed", "", "")
	set(corev1.NamespaceDeletionContentFailure, len(r.errs) > 0, "ContentDeleted", "All content successfully deleted, may be waiting on finalization",
		"ContentDeletionFailed", fmt.Sprintf("Failed to delete all resource types, %d remaining: %s", len(r.errs), r.errorText()))
	set(corev1.NamespaceContentRemaining, len(r.objects) > 0, "ContentRemoved", "All content successfully removed",
		"SomeResourcesRemain", "Some resources are remaining: "+list(r.objects, "%s has %d resource instances"))
	set(corev1.NamespaceFinalizersRemaining, len(r.finalizers) > 0, "ContentHasNoFinalizers", "All content-preserving finalizers finished",
		"SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+list(r.finalizers, "%s in %d resource instances"))
	return out, changed
}

// undiscoveredText says it as client-go does.
func (r *remains) undiscoveredText() string {
	var out []string
	for _, gv := range r.undiscovered {
		out = append(out, fmt.Sprintf("%s: stale GroupVersion discovery: %s", gv, gv))
	}
	return strings.Join(out, ", ")
}

func (r *remains) errorText() string {
	var out []string
	for _, err := range r.errs {
		out = append(out, err.Error())
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// list writes counts in the order of their names, so that the text changes only with them.
func list(counts map[string]int, format string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf(format, name, counts[name]))
	}
	return strings.Join(out, ", ")
}
