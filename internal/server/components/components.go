// Package components answers for componentstatuses: how the scheduler, the controllers and etcd are, as
// "kubectl get componentstatuses" prints it. Kubernetes has deprecated the kind and serves it on.
//
// What flows through it: a call asks for one component or all; each is checked when somebody asks. What must stay true: nothing of
// it is stored; scheduler and controllers are parts of the process that answers, which does not outlive them, so that only etcd can
// be ill. Tests: TestComponentStatuses (internal/server).
package components

import (
	"context"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api/columns"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// Resource is the resource that is answered for.
var Resource = corev1.SchemeGroupVersion.WithResource("componentstatuses")

var kind, listKind = corev1.SchemeGroupVersion.WithKind("ComponentStatus"), corev1.SchemeGroupVersion.WithKind("ComponentStatusList")

// Kinds is the resource for discovery.
func Kinds() []discovery.Review {
	return []discovery.Review{{
		GroupVersionKind: kind, Plural: Resource.Resource, Singular: "componentstatus", ShortNames: []string{"cs"}, Verbs: []string{"get", "list"},
	}}
}

// Components answers for the components of the control plane.
type Components struct {
	etcd func(ctx context.Context) error
}

// New returns Components. etcd reports whether etcd answers; nil stands for a store that cannot fail.
func New(etcd func(ctx context.Context) error) *Components {
	if etcd == nil {
		etcd = func(context.Context) error { return nil }
	}
	return &Components{etcd: etcd}
}

// Serve answers a call.
func (s *Components) Serve(c *call.Call) error {
	t := c.Target
	if t.Namespace != "" || t.Subresource != "" {
		return call.ErrNoPath()
	}
	if t.Verb != "get" && t.Verb != "list" {
		return call.ErrMethod(t)
	}
	t.Known = true
	if err := c.Negotiate(func(a wire.Accepted) bool { return call.MetaKind(a.As) == "Table" && a.Format != wire.Protobuf }); err != nil {
		return err
	}
	c.Warn([]string{"v1 ComponentStatus is deprecated in v1.19+"})
	chosen, err := selection(c)
	if err != nil {
		return err
	}
	items := slices.DeleteFunc(s.all(c.R.Context()), func(i corev1.ComponentStatus) bool { return !chosen(&i) })
	if t.Verb == "get" && len(items) == 0 {
		return apierrors.NewNotFound(t.GroupResource(), t.Name)
	}
	switch {
	case call.MetaKind(c.Accept.As) == "Table":
		return sendTable(c, &corev1.ComponentStatusList{Items: items})
	case t.Verb == "get":
		c.Document(http.StatusOK, &items[0], kind)
	default:
		c.Document(http.StatusOK, &corev1.ComponentStatusList{Items: items}, listKind)
	}
	return nil
}

// all checks every component.
func (s *Components) all(ctx context.Context) []corev1.ComponentStatus {
	etcd := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if err := s.etcd(ctx); err != nil {
		etcd.Status, etcd.Message, etcd.Error = corev1.ConditionFalse, "", err.Error()
	}
	ok := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	var out []corev1.ComponentStatus
	for _, i := range []struct {
		name string
		is   corev1.ComponentCondition
	}{{"controller-manager", ok}, {"etcd-0", etcd}, {"scheduler", ok}} {
		out = append(out, corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: i.name}, Conditions: []corev1.ComponentCondition{i.is}})
	}
	return out
}

// selection reports which components a call means: the one that it names, or those that its selectors choose.
func selection(c *call.Call) (func(*corev1.ComponentStatus) bool, error) {
	if c.Target.Verb == "get" {
		return func(s *corev1.ComponentStatus) bool { return s.Name == c.Target.Name }, nil
	}
	byLabel, err := labels.Parse(c.Query.Get("labelSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest("labelSelector: " + err.Error())
	}
	byField, err := fields.ParseSelector(c.Query.Get("fieldSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest("fieldSelector: " + err.Error())
	}
	return func(s *corev1.ComponentStatus) bool {
		return byLabel.Matches(labels.Set(s.Labels)) && byField.Matches(fields.Set{"metadata.name": s.Name})
	}, nil
}

// sendTable answers with the columns that Kubernetes prints.
func sendTable(c *call.Call, list *corev1.ComponentStatusList) error {
	table, err := columns.Table(list)
	if err != nil {
		return err
	}
	for i := range table.Rows {
		switch metav1.IncludeObjectPolicy(c.Query.Get("includeObject")) {
		case metav1.IncludeNone:
			table.Rows[i].Object = runtime.RawExtension{}
		case metav1.IncludeObject:
			table.Rows[i].Object.Object = wire.Named(table.Rows[i].Object.Object, kind)
		default:
			table.Rows[i].Object.Object = call.Partial(&list.Items[i], c.Accept.As.Version)
		}
	}
	c.Document(http.StatusOK, table, c.Accept.As)
	return nil
}
