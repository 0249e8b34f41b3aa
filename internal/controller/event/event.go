// Package event writes Events, the sentences that kubectl describe shows below an object, for the controllers.
//
// What flows through it: a controller hands over what happened; repeated events become one Event whose count rises, and
// a burst of like events (a ReplicaSet that creates hundreds of pods) is written as ten and a sum. What must stay true: the
// name of an Event is computed from what it says, so that no memory is needed to find the earlier one, not even
// across a restart; a failure to write an Event never fails the work it tells of. Tests: TestNameDependsOnWhatIsSaid,
// TestRepeatsRaiseTheCount, TestNoNamespaceIsNoTrouble.
package event

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// burst is how many events of one object and reason one Write keeps apart, the limit at which Kubernetes' own recorder
// begins to sum up.
const burst = 10

// Event is something that happened to an object.
type Event struct {
	About   api.Object
	Type    string // corev1.EventTypeNormal or EventTypeWarning
	Reason  string // one word in CamelCase: SuccessfulCreate
	Message string
}

// Normal returns an event that tells of something that went as it should.
func Normal(about api.Object, reason, format string, args ...any) Event {
	return Event{About: about, Type: corev1.EventTypeNormal, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Warning returns an event that tells of something that went wrong.
func Warning(about api.Object, reason, format string, args ...any) Event {
	return Event{About: about, Type: corev1.EventTypeWarning, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Write stores events of component, as they happened now. What cannot be written is logged.
func Write(ctx context.Context, c client.Client, component string, now time.Time, events ...Event) {
	if len(events) == 0 {
		return
	}
	var objs []api.Object
	for _, e := range sumUp(events) {
		objs = append(objs, build(e.Event, component, e.count, now))
	}
	for i, r := range c.CreateMany(ctx, objs) {
		err := r.Err
		ev := objs[i].(*corev1.Event)
		if apierrors.IsAlreadyExists(err) {
			err = again(ctx, c, ev)
		}
		// An object's namespace that is going away takes no more events; that is no news.
		if err != nil && ctx.Err() == nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			slog.WarnContext(ctx, "event not written", "object", ev.InvolvedObject.Kind+" "+ev.InvolvedObject.Namespace+"/"+
				ev.InvolvedObject.Name, "reason", ev.Reason, "message", ev.Message, "err", err)
		}
	}
}

// again raises the count of the stored Event that says the same as ev.
func again(ctx context.Context, c client.Client, ev *corev1.Event) error {
	_, err := client.Mutate(ctx, c, api.KeyOf(ev), "", func(old *corev1.Event) bool {
		old.Count += ev.Count
		old.LastTimestamp = ev.LastTimestamp
		return true
	})
	return err
}

type counted struct {
	Event
	count int32
}

// sumUp folds equal events into one with a count, and what goes beyond burst events of one object and reason into one
// sentence.
func sumUp(events []Event) []counted {
	type source struct {
		uid          string
		kind, reason string
	}
	var out []counted
	perSource := map[source]int{}
	last := map[source]int{} // where in out the sum stands
	same := map[string]int{}
	for _, e := range events {
		id := identity(e)
		if i, ok := same[id]; ok {
			out[i].count++
			continue
		}
		s := source{string(e.About.GetUID()), e.Type, e.Reason}
		perSource[s]++
		if perSource[s] <= burst {
			same[id] = len(out)
			out = append(out, counted{e, 1})
			continue
		}
		i, ok := last[s]
		if !ok {
			i = len(out)
			last[s] = i
			out = append(out, counted{})
		}
		e.Message = "(combined from similar events): " + e.Message
		out[i] = counted{e, out[i].count + 1}
	}
	return out
}

// build makes the API object.
func build(e Event, component string, count int32, now time.Time) *corev1.Event {
	ref := Reference(e.About)
	h := fnv.New64a()
	fmt.Fprint(h, component, "\x00", identity(e))
	ns := ref.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	t := metav1.NewTime(now)
	name := ref.Name
	if len(name) > 236 { // a name has room for 253 characters
		name = name[:236]
	}
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s.%016x", name, h.Sum64())},
		InvolvedObject:      ref,
		Type:                e.Type,
		Reason:              e.Reason,
		Message:             e.Message,
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
		FirstTimestamp:      t,
		LastTimestamp:       t,
		Count:               count,
	}
}

func identity(e Event) string {
	return string(e.About.GetUID()) + "\x00" + e.About.GetNamespace() + "/" + e.About.GetName() + "\x00" +
		e.Type + "\x00" + e.Reason + "\x00" + e.Message
}

// Reference names obj the way Events and EndpointSlices do.
func Reference(obj api.Object) corev1.ObjectReference {
	ref := corev1.ObjectReference{
		Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
	}
	if res := api.ByType(reflect.TypeOf(obj)); res != nil {
		ref.Kind, ref.APIVersion = res.Kind, res.GroupVersion().String()
	} else {
		ref.APIVersion, ref.Kind = obj.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	}
	return ref
}
