package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
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
	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// usageGroup is the API that metrics-server has elsewhere, for kubectl top and autoscalers: what nodes and pods use now. Nothing of it
// is stored: the nodes are asked when somebody wants to know.
var usageGroup = metricsv1beta1.SchemeGroupVersion

// usageKinds are its resources, for discovery.
func usageKinds() []discovery.Review {
	read := []string{"get", "list"}
	return []discovery.Review{
		{GroupVersionKind: usageGroup.WithKind("NodeMetrics"), Plural: "nodes", Verbs: read},
		{GroupVersionKind: usageGroup.WithKind("PodMetrics"), Plural: "pods", Namespaced: true, Verbs: read},
	}
}

const (
	// usagePatience is how long a node may take to answer; one that is slower is left out, as one that is away.
	usagePatience = 10 * time.Second
	// usageAtOnce is how many nodes are asked at a time.
	usageAtOnce = 64
)

// usage answers requests of metrics.k8s.io.
func (x *exchange) usage() error {
	if x.t.Version != usageGroup.Version || (x.t.Resource != "nodes" && x.t.Resource != "pods") || x.t.Subresource != "" ||
		(x.t.Resource == "nodes") != (x.t.Namespace == "") && (x.t.Resource == "nodes" || x.t.Name != "") {
		return errNoPath()
	}
	if x.t.Verb != "get" && x.t.Verb != "list" {
		return errMethod(x.t)
	}
	list := x.t.Verb == "list"
	accept, ok := wire.Negotiate(x.r.Header.Get("Accept"), func(a wire.Accepted) bool {
		return a.As == tableKind && a.Format != wire.Protobuf
	})
	if !ok {
		return errNotAcceptable()
	}
	x.accept = accept
	sel, err := x.usageSelection()
	if err != nil {
		return err
	}
	if x.t.Resource == "nodes" {
		items, err := x.nodeUsage(sel)
		if err != nil {
			return err
		}
		return answerUsage(x, items, func(l []metricsv1beta1.NodeMetrics) runtime.Object { return &metricsv1beta1.NodeMetricsList{Items: l} }, list)
	}
	items, err := x.podUsage(sel)
	if err != nil {
		return err
	}
	return answerUsage(x, items, func(l []metricsv1beta1.PodMetrics) runtime.Object { return &metricsv1beta1.PodMetricsList{Items: l} }, list)
}

// usageSelection reads which objects are wanted: those of the path, or those that the selectors choose.
func (x *exchange) usageSelection() (registry.Selection, error) {
	sel := registry.Selection{Namespace: x.t.Namespace}
	if x.t.Name != "" {
		sel.Fields = fields.OneTermEqualSelector("metadata.name", x.t.Name)
		return sel, nil
	}
	var err error
	if sel.Labels, err = labels.Parse(x.q.Get("labelSelector")); err != nil {
		return sel, apierrors.NewBadRequest("labelSelector: " + err.Error())
	}
	if sel.Fields, err = fields.ParseSelector(x.q.Get("fieldSelector")); err != nil {
		return sel, apierrors.NewBadRequest("fieldSelector: " + err.Error())
	}
	return sel, nil
}

// answerUsage sends one of items or all of them, as what they are or as a table.
func answerUsage[T any, P interface {
	*T
	runtime.Object
	metav1.Object
}](x *exchange, items []T, list func([]T) runtime.Object, all bool) error {
	slices.SortFunc(items, func(a, b T) int {
		return cmp.Or(cmp.Compare(P(&a).GetNamespace(), P(&b).GetNamespace()), cmp.Compare(P(&a).GetName(), P(&b).GetName()))
	})
	kind := usageGroup.WithKind(map[string]string{"nodes": "NodeMetrics", "pods": "PodMetrics"}[x.t.Resource])
	if !all && len(items) == 0 {
		return apierrors.NewNotFound(usageGroup.WithResource(x.t.Resource).GroupResource(), x.t.Name)
	}
	if x.accept.As == tableKind {
		x.document(http.StatusOK, usageTable(x.t.Resource, items, func(i *T) any { return i }), tableKind)
		return nil
	}
	if !all {
		x.document(http.StatusOK, P(&items[0]), kind)
		return nil
	}
	for i := range items {
		P(&items[i]).GetObjectKind().SetGroupVersionKind(kind)
	}
	x.document(http.StatusOK, list(items), usageGroup.WithKind(kind.Kind+"List"))
	return nil
}

// usageTable has the columns that metrics-server prints.
func usageTable[T any](resource string, items []T, as func(*T) any) *metav1.Table {
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
			Object: runtime.RawExtension{Object: partial(&meta)},
		})
	}
	return t
}

// nodeUsage asks each of the nodes that are wanted.
func (x *exchange) nodeUsage(sel registry.Selection) ([]metricsv1beta1.NodeMetrics, error) {
	list, err := x.s.cfg.Registry.List(x.r.Context(), api.Nodes, registry.ListOptions{Selection: sel})
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
	x.askNodes(byName, "/usage/node", func(node *corev1.Node, body []byte) error {
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

// podUsage asks the nodes on which the pods run that are wanted.
func (x *exchange) podUsage(sel registry.Selection) ([]metricsv1beta1.PodMetrics, error) {
	list, err := x.s.cfg.Registry.List(x.r.Context(), api.Pods, registry.ListOptions{Selection: sel})
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
	x.askNodes(nodes, "/usage/pods", func(_ *corev1.Node, body []byte) error {
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
func (x *exchange) askNodes(nodes map[string]*corev1.Node, path string, each func(*corev1.Node, []byte) error) {
	ctx, cancel := context.WithTimeout(x.r.Context(), usagePatience)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(usageAtOnce)
	for name, node := range nodes {
		g.Go(func() error {
			err := x.askNode(ctx, name, path, func(b []byte) error { return each(node, b) })
			if err != nil {
				x.s.log.Debug("a node did not tell what it uses", "node", name, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait() // errors were told
}

func (x *exchange) askNode(ctx context.Context, name, path string, each func([]byte) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // http.ErrAbortHandler: the connection with the agent was lost
			err = fmt.Errorf("the answer broke off: %v", p)
		}
	}()
	node, err := x.s.endpoints(x, name)
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
