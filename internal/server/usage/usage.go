// Package usage answers metrics.k8s.io, the API that metrics-server has elsewhere, for kubectl top and autoscalers: what nodes and
// pods use now.
//
// What flows through it: a call names nodes or pods; the registry says on which nodes they are; these are asked at the same time
// over [Config.Node]. Who has to know at once has the nodes push what their pods use ([Feed]). What must stay true: nothing of it is stored; a
// node that does not answer costs no more than its own figures, and speaks of its own pods alone; no node measures for a feed that nobody wants.
// Tests: TestUsage, TestUsageOfANodeThatBreaksOff (internal/server), TestNodesPushWhileSomebodyWantsToKnow.
package usage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// GroupVersion is the API's.
var GroupVersion = metricsv1beta1.SchemeGroupVersion

// Kinds are its resources, for discovery.
func Kinds() []discovery.Review {
	read := []string{"get", "list"}
	return []discovery.Review{
		{GroupVersionKind: GroupVersion.WithKind("NodeMetrics"), Plural: "nodes", Verbs: read},
		{GroupVersionKind: GroupVersion.WithKind("PodMetrics"), Plural: "pods", Namespaced: true, Verbs: read},
	}
}

const (
	// patience is how long a node may take to answer; one that is slower is left out, as one that is away.
	patience = 10 * time.Second
	// atOnce is how many nodes are asked at a time.
	atOnce = 64
)

// Node answers for itself on the paths of its agent.
type Node interface {
	ServeNode(w http.ResponseWriter, r *http.Request)
}

// Config is what a Meter works with.
type Config struct {
	Registry *registry.Registry
	// Node returns the way to a node.
	Node func(ctx context.Context, name string) (Node, error)
	Log  *slog.Logger
}

// Meter answers requests of metrics.k8s.io.
type Meter struct{ cfg Config }

// New returns a Meter.
func New(cfg Config) *Meter { return &Meter{cfg: cfg} }

// Serve answers a call.
func (m *Meter) Serve(c *call.Call) error {
	if c.Target.Version != GroupVersion.Version || (c.Target.Resource != "nodes" && c.Target.Resource != "pods") || c.Target.Subresource != "" ||
		(c.Target.Resource == "nodes") != (c.Target.Namespace == "") && (c.Target.Resource == "nodes" || c.Target.Name != "") {
		return call.ErrNoPath()
	}
	if c.Target.Verb != "get" && c.Target.Verb != "list" {
		return call.ErrMethod(c.Target)
	}
	c.Target.Known = true
	list := c.Target.Verb == "list"
	if err := c.Negotiate(func(a wire.Accepted) bool { return call.MetaKind(a.As) == "Table" && a.Format != wire.Protobuf }); err != nil {
		return err
	}
	sel, err := m.selection(c)
	if err != nil {
		return err
	}
	if c.Target.Resource == "nodes" {
		items, err := m.nodeItems(c, sel)
		if err != nil {
			return err
		}
		return answer(c, items, func(l []metricsv1beta1.NodeMetrics) runtime.Object { return &metricsv1beta1.NodeMetricsList{Items: l} }, list)
	}
	items, err := m.podItems(c, sel)
	if err != nil {
		return err
	}
	return answer(c, items, func(l []metricsv1beta1.PodMetrics) runtime.Object { return &metricsv1beta1.PodMetricsList{Items: l} }, list)
}

// selection reads which objects are wanted: those of the path, or those that the selectors choose.
func (m *Meter) selection(c *call.Call) (registry.Selection, error) {
	sel := registry.Selection{Namespace: c.Target.Namespace}
	if c.Target.Name != "" {
		sel.Fields = fields.OneTermEqualSelector("metadata.name", c.Target.Name)
		return sel, nil
	}
	var err error
	if sel.Labels, err = labels.Parse(c.Query.Get("labelSelector")); err != nil {
		return sel, apierrors.NewBadRequest("labelSelector: " + err.Error())
	}
	if sel.Fields, err = fields.ParseSelector(c.Query.Get("fieldSelector")); err != nil {
		return sel, apierrors.NewBadRequest("fieldSelector: " + err.Error())
	}
	return sel, nil
}

// answer sends one of items or all of them, as what they are or as a table.
func answer[T any, P interface {
	*T
	runtime.Object
	metav1.Object
}](c *call.Call, items []T, list func([]T) runtime.Object, all bool) error {
	slices.SortFunc(items, func(a, b T) int {
		return cmp.Or(cmp.Compare(P(&a).GetNamespace(), P(&b).GetNamespace()), cmp.Compare(P(&a).GetName(), P(&b).GetName()))
	})
	kind := GroupVersion.WithKind(map[string]string{"nodes": "NodeMetrics", "pods": "PodMetrics"}[c.Target.Resource])
	if !all && len(items) == 0 {
		return apierrors.NewNotFound(GroupVersion.WithResource(c.Target.Resource).GroupResource(), c.Target.Name)
	}
	if call.MetaKind(c.Accept.As) == "Table" {
		c.Document(http.StatusOK, table(c, items, func(i *T) any { return i }), c.Accept.As)
		return nil
	}
	if !all {
		c.Document(http.StatusOK, P(&items[0]), kind)
		return nil
	}
	for i := range items {
		P(&items[i]).GetObjectKind().SetGroupVersionKind(kind)
	}
	c.Document(http.StatusOK, list(items), GroupVersion.WithKind(kind.Kind+"List"))
	return nil
}

// table has the columns that metrics-server prints.
func table[T any](c *call.Call, items []T, as func(*T) any) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
		{Name: "CPU", Type: "string", Format: "quantity", Description: "Processor time used per second, in cores"},
		{Name: "Memory", Type: "string", Format: "quantity", Description: "Working set"},
		{Name: "Window", Type: "string", Format: "duration", Description: "The time over which the processor time was measured"},
	}}
	for i := range items {
		var meta metav1.ObjectMeta
		var window time.Duration
		use := corev1.ResourceList{}
		switch o := as(&items[i]).(type) {
		case *metricsv1beta1.NodeMetrics:
			meta, window, use = o.ObjectMeta, o.Window.Duration, o.Usage
		case *metricsv1beta1.PodMetrics:
			meta, window = o.ObjectMeta, o.Window.Duration
			for _, c := range o.Containers {
				for name, q := range c.Usage {
					sum := use[name]
					sum.Add(q)
					use[name] = sum
				}
			}
		}
		cpu, memory := use[corev1.ResourceCPU], use[corev1.ResourceMemory]
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells:  []any{meta.Name, cpu.String(), memory.String(), window.String()},
			Object: runtime.RawExtension{Object: call.Partial(&meta, c.Accept.As.Version)},
		})
	}
	return t
}

// nodeItems asks each of the nodes that are wanted.
func (m *Meter) nodeItems(c *call.Call, sel registry.Selection) ([]metricsv1beta1.NodeMetrics, error) {
	list, err := m.cfg.Registry.List(c.R.Context(), api.Nodes, registry.ListOptions{Selection: sel})
	if err != nil {
		return nil, err
	}
	byName := map[string]*corev1.Node{}
	for _, rev := range list.Items {
		node := rev.Object.(*corev1.Node)
		byName[node.Name] = node
	}
	var mu sync.Mutex
	out := []metricsv1beta1.NodeMetrics{}
	m.askNodes(c, byName, "/usage/node", func(node *corev1.Node, body []byte) error {
		var m metricsv1beta1.NodeMetrics
		if err := json.Unmarshal(body, &m); err != nil {
			return err
		}
		m.ObjectMeta = metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: m.Timestamp}
		mu.Lock()
		defer mu.Unlock()
		out = append(out, m)
		return nil
	})
	return out, nil
}

// podItems asks the nodes on which the pods run that are wanted.
func (m *Meter) podItems(c *call.Call, sel registry.Selection) ([]metricsv1beta1.PodMetrics, error) {
	list, err := m.cfg.Registry.List(c.R.Context(), api.Pods, registry.ListOptions{Selection: sel})
	if err != nil {
		return nil, err
	}
	wanted, nodes := map[api.Key]*corev1.Pod{}, map[string]*corev1.Node{}
	for _, rev := range list.Items {
		if pod := rev.Object.(*corev1.Pod); pod.Status.Phase == corev1.PodRunning {
			wanted[api.KeyOf(pod)] = pod
			nodes[pod.Spec.NodeName] = nil
		}
	}
	var mu sync.Mutex
	out := []metricsv1beta1.PodMetrics{}
	m.askNodes(c, nodes, "/usage/pods", func(_ *corev1.Node, body []byte) error {
		var l metricsv1beta1.PodMetricsList
		if err := json.Unmarshal(body, &l); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range l.Items {
			if pod := wanted[api.KeyOf(&m)]; pod != nil {
				m.ObjectMeta = metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels, CreationTimestamp: m.Timestamp}
				out = append(out, m)
			}
		}
		return nil
	})
	return out, nil
}

// askNodes hands what each node answers to each, which is called concurrently. A node that does not answer is left out: it is for
// its Ready condition to say that it is away.
func (m *Meter) askNodes(c *call.Call, nodes map[string]*corev1.Node, path string, each func(*corev1.Node, []byte) error) {
	ctx, cancel := context.WithTimeout(c.R.Context(), patience)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for name, node := range nodes {
		g.Go(func() error {
			err := m.askNode(c, ctx, name, path, func(b []byte) error { return each(node, b) })
			if err != nil {
				c.Log.Debug("a node did not say what it uses", "node", name, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait() // errors were logged
}

func (m *Meter) askNode(c *call.Call, ctx context.Context, name, path string, each func([]byte) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // http.ErrAbortHandler: the connection with the agent was lost
			err = fmt.Errorf("the answer broke off: %v", p)
		}
	}()
	node, err := m.cfg.Node(ctx, name)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	w := &kept{header: http.Header{}, code: http.StatusOK}
	node.ServeNode(w, r)
	if w.code != http.StatusOK {
		return fmt.Errorf("%d: %s", w.code, bytes.TrimSpace(w.body.Bytes()))
	}
	return each(w.body.Bytes())
}

// kept is an answer in memory.
type kept struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
func (k *kept) WriteHeader(code int)        { k.code = code }

// Flush does nothing. What passes on the answer of another machine's agent flushes, and takes it for lost where that is not possible.
func (k *kept) Flush() {}
