package registry_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

func names(revs []*store.Revision) string {
	var out []string
	for _, r := range revs {
		out = append(out, r.Key)
	}
	return strings.Join(out, " ")
}

func TestListSelects(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "secret"}})
	for _, p := range []struct{ ns, name, node string }{{"default", "a", "n1"}, {"default", "b", "n2"}, {"default", "c", ""}, {"secret", "a", "n1"}} {
		o := pod(p.name)
		o.Namespace, o.Spec.NodeName = p.ns, p.node
		clienttest.Create(t, c, o)
	}
	for _, tc := range []struct{ ns, fields, want string }{
		{"", "", "default/a default/b default/c secret/a"},
		{"default", "", "default/a default/b default/c"},
		{"def", "", ""},
		{"", "spec.nodeName=n1", "default/a secret/a"},
		{"default", "spec.nodeName=n1", "default/a"},
		{"default", "spec.nodeName=", "default/c"},
		{"default", "spec.nodeName!=n1", "default/b default/c"},
		{"", "metadata.name=a", "default/a secret/a"},
		{"secret", "metadata.name=a", "secret/a"},
		{"secret", "metadata.name=b", ""},
		{"default", "metadata.name=a,spec.nodeName=n2", ""},
		{"", "metadata.namespace=secret", "secret/a"},
		{"", "status.phase=Pending,spec.restartPolicy=Always", "default/a default/b default/c secret/a"},
	} {
		sel, err := fields.ParseSelector(tc.fields)
		if err != nil {
			t.Fatal(err)
		}
		selection := registry.Selection{Namespace: tc.ns, Fields: sel}
		list, err := r.List(t.Context(), api.Pods, registry.ListOptions{Selection: selection})
		if err != nil || names(list.Items) != tc.want {
			t.Errorf("%q in %q: %s, %v; want %s", tc.fields, tc.ns, names(list.Items), err, tc.want)
		}
		w, err := r.Watch(t.Context(), api.Pods, registry.WatchOptions{Selection: selection})
		if err != nil || names(w.Initial) != tc.want {
			t.Errorf("watching %q in %q begins with %s, %v; want %s", tc.fields, tc.ns, names(w.Initial), err, tc.want)
		}
		w.Stop()
	}
	for _, name := range []string{"spec.nope", "spec.containers"} {
		if _, err := r.List(t.Context(), api.Pods, registry.ListOptions{Selection: registry.Selection{Fields: fields.OneTermEqualSelector(name, "x")}}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "field label not supported: "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFieldsOfAnotherVersion selects events by the names of events.k8s.io.
func TestFieldsOfAnotherVersion(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	for _, name := range []string{"a", "b"} {
		clienttest.Create(t, c, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: name},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: name, Namespace: "default"},
		})
	}
	sel := registry.Selection{Fields: fields.OneTermEqualSelector("regarding.name", "b"), Version: eventsv1.SchemeGroupVersion}
	list, err := r.List(t.Context(), api.Events, registry.ListOptions{Selection: sel})
	if err != nil || names(list.Items) != "default/b" {
		t.Errorf("regarding.name: %v, %v", list, err)
	}
	sel.Version = corev1.SchemeGroupVersion
	if _, err := r.List(t.Context(), api.Events, registry.ListOptions{Selection: sel}); !apierrors.IsBadRequest(err) {
		t.Errorf("regarding.name in v1: %v", err)
	}
}

func TestPagesAndRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := clienttest.NewRegistry(t)
		for i := range 6 {
			clienttest.Create(t, c, pod(fmt.Sprintf("p%d", i)))
		}
		list := func(o registry.ListOptions) (*registry.ListResult, error) { return r.List(t.Context(), api.Pods, o) }
		first, err := list(registry.ListOptions{Limit: 4})
		if err != nil || first.Continue == "" {
			t.Fatalf("%+v, %v", first, err)
		}
		at := store.FormatRevision(first.Revision)
		exact := registry.ListOptions{ResourceVersion: at, ResourceVersionMatch: metav1.ResourceVersionMatchExact}

		// Other resources change: nothing has happened to the pods.
		clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}})
		if l, err := list(exact); err != nil || len(l.Items) != 6 || l.Revision != first.Revision {
			t.Errorf("exactly at %s: %+v, %v", at, l, err)
		}
		if err := client.Delete[*corev1.Pod](t.Context(), c, key("p5"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if l, err := list(exact); err != nil || len(l.Items) != 6 || l.Revision != first.Revision {
			t.Errorf("exactly at %s, which is being paged: %+v, %v", at, l, err)
		}
		for _, tc := range []struct {
			name  string
			opts  registry.ListOptions
			items int // -1: check
			check func(error) bool
		}{
			{"the next page", registry.ListOptions{Continue: first.Continue}, 2, nil},
			{"with the revision 0", registry.ListOptions{Continue: first.Continue, ResourceVersion: "0"}, 2, nil},
			{"a page and a revision", registry.ListOptions{Continue: first.Continue, ResourceVersion: at}, -1, apierrors.IsBadRequest},
			{"no token", registry.ListOptions{Continue: "what?"}, -1, apierrors.IsBadRequest},
			{"not older than", registry.ListOptions{ResourceVersion: at, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, 5, nil},
			{"any", registry.ListOptions{ResourceVersion: "0"}, 5, nil},
			{"no revision", registry.ListOptions{ResourceVersion: "new"}, -1, apierrors.IsBadRequest},
			{"a revision from the future", registry.ListOptions{ResourceVersion: "99999"}, -1, apierrors.IsTimeout},
			{"exactly the past", registry.ListOptions{ResourceVersion: "2", ResourceVersionMatch: metav1.ResourceVersionMatchExact}, -1, apierrors.IsResourceExpired},
		} {
			l, err := list(tc.opts)
			if tc.check != nil && !tc.check(err) || tc.check == nil && (err != nil || len(l.Items) != tc.items) {
				t.Errorf("%s: %+v, %v", tc.name, l, err)
			}
		}

		time.Sleep(3 * time.Minute) // in the bubble's time
		if l, err := list(registry.ListOptions{Continue: first.Continue, Limit: 1}); err != nil || len(l.Items) != 1 {
			t.Errorf("the next page after three minutes: %+v, %v", l, err)
		}
		time.Sleep(3 * time.Minute) // that its pages are read again makes a list no younger
		_, err = list(registry.ListOptions{Continue: first.Continue})
		status, ok := err.(apierrors.APIStatus)
		if !ok || !apierrors.IsResourceExpired(err) || status.Status().Continue == "" {
			t.Fatalf("a token that is too old: %v", err)
		}
		rest, err := list(registry.ListOptions{Continue: status.Status().Continue})
		if err != nil || names(rest.Items) != "default/p4" {
			t.Errorf("going on without consistency: %+v, %v", rest, err)
		}
	})
}

// TestPagesOfWhatDoesNotChange has a revision that is still the newest when its token is too old.
func TestPagesOfWhatDoesNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := clienttest.NewRegistry(t)
		for i := range 4 {
			clienttest.Create(t, c, pod(fmt.Sprintf("p%d", i)))
		}
		list := func(token string) (*registry.ListResult, error) {
			return r.List(t.Context(), api.Pods, registry.ListOptions{Limit: 1, Continue: token})
		}
		first, err := list("")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute) // in the bubble's time
		_, err = list(first.Continue)
		status, ok := err.(apierrors.APIStatus)
		if !ok || !apierrors.IsResourceExpired(err) {
			t.Fatalf("a token that is too old: %v", err)
		}
		second, err := list(status.Status().Continue)
		if err != nil || names(second.Items) != "default/p1" {
			t.Fatalf("going on without consistency: %+v, %v", second, err)
		}
		if third, err := list(second.Continue); err != nil || names(third.Items) != "default/p2" || third.Revision != second.Revision {
			t.Errorf("and from there with it: %+v, %v", third, err)
		}
	})
}

// TestManyPagedLists keeps as many lists under way as are kept, and a few more.
func TestManyPagedLists(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	var tokens []string
	for i := range 70 {
		clienttest.Create(t, c, pod(fmt.Sprintf("p%02d", i)))
		if i < 2 {
			continue
		}
		l, err := r.List(t.Context(), api.Pods, registry.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, l.Continue)
	}
	for i, token := range tokens {
		_, err := r.List(t.Context(), api.Pods, registry.ListOptions{Continue: token})
		if old := len(tokens)-i > 64; old != apierrors.IsResourceExpired(err) || !old && err != nil {
			t.Errorf("list %d of %d: %v", i, len(tokens), err)
		}
	}
}

func FuzzContinue(f *testing.F) {
	c, r := clienttest.NewRegistry(f)
	for _, ns := range []string{"b", "bb", "c"} {
		clienttest.Create(f, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		p := pod("p")
		p.Namespace = ns
		clienttest.Create(f, c, p)
	}
	l, err := r.List(context.Background(), api.Pods, registry.ListOptions{Limit: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(l.Continue)
	f.Add("eyJydiI6LTEsInN0YXJ0IjoiYS9wIn0") // {"rv":-1,"start":"a/p"}
	f.Fuzz(func(t *testing.T, token string) {
		l, err := r.List(context.Background(), api.Pods, registry.ListOptions{Selection: registry.Selection{Namespace: "b"}, Continue: token})
		if token == "" {
			return
		}
		if err != nil {
			if !apierrors.IsBadRequest(err) && !apierrors.IsResourceExpired(err) {
				t.Errorf("%q: %v", token, err)
			}
			return
		}
		for _, rev := range l.Items {
			if rev.Object.GetNamespace() != "b" {
				t.Errorf("%q shows %s", token, rev.Key)
			}
		}
	})
}

func TestWatchBegins(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	a := clienttest.Create(t, c, pod("a"))
	clienttest.Create(t, c, pod("b"))
	for _, tc := range []struct {
		name    string
		opts    registry.WatchOptions
		initial string
		next    string
	}{
		{"nothing said", registry.WatchOptions{}, "default/a default/b", "default/c"},
		{"any revision", registry.WatchOptions{ResourceVersion: "0"}, "default/a default/b", "default/c"},
		{"a revision", registry.WatchOptions{ResourceVersion: a.ResourceVersion}, "", "default/b default/c"},
		{"a revision, and the state first", registry.WatchOptions{ResourceVersion: a.ResourceVersion, Initial: true}, "default/a default/b", "default/c"},
		{"no state", registry.WatchOptions{None: true}, "", "default/c"},
	} {
		w, err := r.Watch(t.Context(), api.Pods, tc.opts)
		if err != nil {
			t.Fatal(err)
		}
		if names(w.Initial) != tc.initial {
			t.Errorf("%s: begins with %s, want %s", tc.name, names(w.Initial), tc.initial)
		}
		clienttest.Create(t, c, pod("c"))
		events, err := w.Next(t.Context())
		var got []string
		for _, e := range events {
			if !slices.Contains(got, e.Revision.Key) { // c came and went with the cases before
				got = append(got, e.Revision.Key)
			}
		}
		if err != nil || strings.Join(got, " ") != tc.next {
			t.Errorf("%s: then %v, %v; want %s", tc.name, got, err, tc.next)
		}
		if rev, ok := w.Progress(); !ok || rev < w.InitialRevision {
			t.Errorf("%s: progress %d %v", tc.name, rev, ok)
		}
		w.Stop()
		if err := client.Delete[*corev1.Pod](t.Context(), c, key("c"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Watch(t.Context(), api.Pods, registry.WatchOptions{ResourceVersion: "1"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a revision from before the start: %v", err)
	}
}

// TestWatchShowsWhatIsSelected lets objects enter and leave the view of label and field selectors.
func TestWatchShowsWhatIsSelected(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	w, err := r.Watch(t.Context(), api.Pods, registry.WatchOptions{Selection: registry.Selection{Namespace: "default", Fields: fields.OneTermEqualSelector("spec.nodeName", "")}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	clienttest.Create(t, c, pod("a"))
	bound := c.BindMany(t.Context(), []client.Binding{{Pod: key("a"), Node: "n"}})[0]
	if bound.Err != nil {
		t.Fatal(bound.Err)
	}
	if _, err := client.Mutate(t.Context(), c, key("a"), "status", func(p *corev1.Pod) bool { p.Status.Phase = corev1.PodRunning; return true }); err != nil {
		t.Fatal(err)
	}
	clienttest.Create(t, c, pod("b"))
	var got []string
	for len(got) < 3 {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			got = append(got, fmt.Sprint(e.Type, " ", e.Revision.Key))
			if e.Type == store.Deleted && (e.Revision.Object.GetResourceVersion() != bound.Object.GetResourceVersion() || e.Revision.Object.(*corev1.Pod).Spec.NodeName != "") {
				t.Errorf("leaving the view shows the last state that was in it, at the revision of leaving: %+v", e.Revision.Object)
			}
		}
	}
	if want := fmt.Sprintf("[%d default/a %d default/a %d default/b]", store.Added, store.Deleted, store.Added); fmt.Sprint(got) != want {
		t.Errorf("saw %v, want %s", got, want)
	}
}
