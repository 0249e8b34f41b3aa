// Package podautoscaler scales what HorizontalPodAutoscalers name, by what its pods use and by other metrics.
//
// What flows through it: an autoscaler, the scale of its target - anything in the catalogue that has one - and the pods that this selects
// are read; the nodes push what the pods use ([Config.Feed]), and the metrics APIs are asked for everything else ([Config.Ask]); [plan] says how
// many replicas there are to be and why; the scale is written, and then the status. Each push is looked at, so that a load is answered within
// five seconds, where Kubernetes looks once in 15 s at figures that may be 30 s old. Where no node pushes, there is a look every [look].
//
// What must stay true: planning is a pure function of what was read, the recent history and the time; a restart forgets that history and
// keeps the replicas that there are until a full window has passed (TestARestartScalesNothingDownAtOnce); however many autoscalers
// there are, there are no more than [looksPerSecond] looks (TestPushesAreLookedAt).
package podautoscaler

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/server/registry"
)

const (
	component = "horizontal-pod-autoscaler"
	// look is the time between two looks at an autoscaler. It doubles with each that fails in a row, up to longestLook.
	look        = 3 * time.Second
	longestLook = 15 * time.Second
	// pushedLook is the time between two looks for which pushes are the reason.
	pushedLook = time.Second
	// looksPerSecond is how many looks there are at most, all autoscalers together.
	looksPerSecond = 50
	// quiet is how long a status is not written of which only the figures have changed.
	quiet = 15 * time.Second
	// repeat is how often events are written again that say the same of looks that fail.
	repeat = 5 * time.Minute
)

// Config is what the controller works with beside the client.
type Config struct {
	// Ask asks the metrics APIs; nil where there are none.
	Ask Ask
	// Feed has what pods use; nil: the metrics API is asked.
	Feed Feed
	// Rescale sets the replicas of an object through its scale subresource.
	Rescale func(ctx context.Context, res *api.Resource, key api.Key, replicas int32) error
	Metrics *Metrics // nil where nobody asks for them
}

// Feed has what pods use, as their nodes push it.
type Feed interface {
	// Run keeps nodes pushing until ctx ends. It calls pushed for each that wants to know of pods on a node that has pushed.
	Run(ctx context.Context, pushed func(by api.Key))
	// Want makes pods those of which by wants to know, in place of those before; none: it no longer wants to know anything.
	Want(by api.Key, pods []*corev1.Pod)
	// Usage returns what the running ones of pods use. complete is false where that is to be asked for instead.
	Usage(pods []*corev1.Pod) (items []metrics.PodMetrics, complete bool)
}

type reconciler struct {
	client client.Client
	cfg    Config

	mu    sync.Mutex
	known map[api.Key]*memory
}

// memory is what is known of an autoscaler from earlier looks.
type memory struct {
	uid      types.UID
	history  history
	selector labels.Selector // nil before the first look at its scale
	written  time.Time       // when its status was written
	looked   time.Time       // when the last look began
	failed   int             // looks in a row that failed
	reported string          // what the events of the last failure said that were written
	at       time.Time       // when that was
}

// New declares the HorizontalPodAutoscaler controller.
func New(c client.Client, cfg Config) controller.Controller {
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	r := &reconciler{client: c, cfg: cfg, known: map[api.Key]*memory{}}
	var follow func(context.Context, func(api.Key))
	if cfg.Feed != nil {
		follow = func(ctx context.Context, look func(api.Key)) {
			cfg.Feed.Run(ctx, func(key api.Key) {
				if r.due(key, time.Now()) {
					look(key)
				}
			})
		}
	}
	return controller.Controller{
		Name:    "horizontalpodautoscaler",
		Workers: 5,
		Watches: []controller.Watch{{Resource: api.HorizontalPodAutoscalers, Keys: changedSpec}},
		Writes: []controller.Write{
			controller.Sets(api.HorizontalPodAutoscalers, "status"),
			controller.Sets(nil, "spec", "replicas").Of("with a scale, that an autoscaler names"),
		},
		Follow:     follow,
		Reconciler: r,
	}
}

// due reports whether a push is a reason for a look at an autoscaler. One that fails is looked at when its time comes.
func (r *reconciler) due(key api.Key, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.known[key]
	if m == nil || m.failed > 0 || now.Sub(m.looked) < max(pushedLook*9/10, spread(len(r.known))) {
		return false
	}
	m.looked = now
	return true
}

// spread is the time between two looks at each of n autoscalers at which there are looksPerSecond.
func spread(n int) time.Duration { return time.Duration(n) * time.Second / looksPerSecond }

// changedSpec leaves out changes of the status, which this controller writes itself.
func changedSpec(e client.Event) []api.Key {
	if e.Old != nil && e.Type != client.Deleted && e.Old.GetGeneration() == e.Object.GetGeneration() && e.Old.GetUID() == e.Object.GetUID() {
		return nil
	}
	return []api.Key{api.KeyOf(e.Object)}
}

// Reconcile takes one look at one autoscaler.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	hpa, err := client.Get[*autoscalingv2.HorizontalPodAutoscaler](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	began := time.Now()
	m, others := r.remember(hpa, began)
	res, obs, err := r.observe(ctx, hpa, m)
	if err != nil {
		return 0, err
	}
	act := plan(hpa, obs, time.Now())
	if act.Rescale {
		target := api.Key{Namespace: hpa.Namespace, Name: hpa.Spec.ScaleTargetRef.Name}
		act.finish(hpa, r.cfg.Rescale(ctx, res, target, act.To), time.Now())
	}
	r.cfg.Metrics.looked(hpa, obs, act, time.Since(began))
	if act.Failed == nil || m.news(act.Events, time.Now()) {
		event.Write(ctx, r.client, component, time.Now(), act.Events...)
	}
	r.mu.Lock()
	m.history = act.History
	r.mu.Unlock()
	if err := r.writeStatus(ctx, hpa, m, act.Status); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if act.Failed != nil {
		m.failed++
		return min(look<<min(m.failed-1, 8), longestLook), nil
	}
	m.failed, m.reported = 0, ""
	return max(look, spread(others)), nil
}

// forget drops what is known of an autoscaler that is gone.
func (r *reconciler) forget(key api.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, key)
	r.cfg.Metrics.known.Set(float64(len(r.known)))
	r.cfg.Metrics.forgotten(key)
	if r.cfg.Feed != nil {
		r.cfg.Feed.Want(key, nil)
	}
}

// news reports whether the events of a look that failed say something else than those before, or it is time to say it again.
func (m *memory) news(events []event.Event, now time.Time) bool {
	text := ""
	for _, e := range events {
		text += e.Reason + ": " + e.Message + "\n"
	}
	if text == m.reported && now.Sub(m.at) < repeat {
		return false
	}
	m.reported, m.at = text, now
	return true
}

// remember returns what is known of hpa, at which there is a look now, and how many autoscalers there are.
func (r *reconciler) remember(hpa *autoscalingv2.HorizontalPodAutoscaler, now time.Time) (*memory, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.known[api.KeyOf(hpa)]
	if m == nil || m.uid != hpa.UID {
		m = &memory{uid: hpa.UID}
		r.known[api.KeyOf(hpa)] = m
		r.cfg.Metrics.known.Set(float64(len(r.known)))
	}
	m.looked = now
	return m, len(r.known)
}

// observe reads the scale of hpa's target, its pods and, where they decide, the metrics.
func (r *reconciler) observe(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, m *memory) (*api.Resource, observed, error) {
	obs := observed{history: m.history}
	var res *api.Resource
	if res, obs.scale, obs.err = r.scale(ctx, hpa); obs.err != nil {
		return nil, obs, nil
	}
	selector, err := selectorOf(obs.scale)
	if err != nil || !measures(hpa, obs.scale.Spec.Replicas) {
		return res, obs, nil // it is for the plan to say what is wrong with it
	}
	obs.pods, err = client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Namespace: hpa.Namespace, Labels: selector})
	if err != nil {
		return nil, obs, err
	}
	r.mu.Lock()
	m.selector = selector
	obs.rivals = r.rivals(hpa.Namespace, obs.pods)
	r.mu.Unlock()
	if len(obs.rivals) < 2 {
		obs.readings = r.read(ctx, hpa, selector, obs.pods)
	}
	return res, obs, nil
}

// rivals returns the autoscalers of a namespace that select one of pods.
func (r *reconciler) rivals(namespace string, pods []*corev1.Pod) []string {
	var out []string
	for key, m := range r.known {
		if key.Namespace == namespace && m.selector != nil && slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return m.selector.Matches(labels.Set(p.Labels)) }) {
			out = append(out, key.String())
		}
	}
	slices.SortFunc(out, strings.Compare)
	return out
}

// resource finds what is served under a kind, in whichever version of its group.
func (r *reconciler) resource(apiVersion, kind string) (*api.Resource, error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, &specError{err}
	}
	catalog := r.client.Served().Now()
	if res := catalog.Kind(gv.WithKind(kind)); res != nil {
		return res, nil
	}
	for _, res := range catalog.All() {
		if res.Group == gv.Group && res.Kind == kind {
			return res, nil
		}
	}
	return nil, &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: gv.Group, Kind: kind}, SearchedVersions: []string{gv.Version}}
}

// scale reads the scale of hpa's target.
func (r *reconciler) scale(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler) (*api.Resource, *autoscalingv1.Scale, error) {
	ref := hpa.Spec.ScaleTargetRef
	res, err := r.resource(ref.APIVersion, ref.Kind)
	if err != nil {
		return nil, nil, err
	}
	obj, err := r.client.Get(ctx, res, api.Key{Namespace: hpa.Namespace, Name: ref.Name})
	if err != nil {
		return nil, nil, err
	}
	if stored := r.client.Served().Now().Of(obj); stored != nil {
		res = stored // a custom resource is read as it is stored
	}
	if res.Scale == nil {
		return nil, nil, apierrors.NewGenericServerResponse(http.StatusNotFound, "get", res.GroupResource(), ref.Name+"/scale", "", 0, true)
	}
	scale, err := registry.ScaleOf(res, obj)
	return res, scale, err
}

// writeStatus stores a status, unless it says nothing new.
func (r *reconciler) writeStatus(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, m *memory, status autoscalingv2.HorizontalPodAutoscalerStatus) error {
	if apiequality.Semantic.DeepEqual(hpa.Status, status) {
		return nil
	}
	same := status
	same.CurrentMetrics = hpa.Status.CurrentMetrics
	if len(status.CurrentMetrics) == len(hpa.Status.CurrentMetrics) && time.Since(m.written) < quiet && apiequality.Semantic.DeepEqual(hpa.Status, same) {
		return nil
	}
	next := hpa.DeepCopy()
	next.Status = status
	if _, err := r.client.Update(ctx, next, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of HorizontalPodAutoscaler %s: %w", api.KeyOf(hpa), err)
	}
	m.written = time.Now()
	return nil
}
