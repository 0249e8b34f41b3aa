package sources

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// user is a pod that counts how often it was told of a change.
type user struct {
	uid types.UID

	mu      sync.Mutex // two watches may tell it at once
	changes []string
}

func (u *user) UID() types.UID { return u.uid }

func (u *user) SourceChanged(ref volume.Ref) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changes = append(u.changes, ref.Kind+"/"+ref.Name)
}

type world struct {
	*Sources
	t *testing.T
	c *client.Local
	// asked are the tokens that were asked for.
	asked []authenticationv1.TokenRequestSpec
	// warnings are the events: REASON MESSAGE.
	warnings []string
}

func (w *world) Warning(_ *corev1.Pod, _, reason, message string) {
	w.warnings = append(w.warnings, reason+" "+message)
}

func inBubble(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		var tasks task.Group
		ctx, cancel := context.WithCancel(context.Background())
		tasks.Open(ctx)
		w := &world{t: t, c: clienttest.New(t)}
		w.Sources = New(Settings{Client: w.c, Node: "n1", Events: w, Tasks: &tasks, Tokens: w.issue, Log: slog.New(slog.DiscardHandler)})
		f(w)
		cancel()
		tasks.Close()
		tasks.Wait()
	})
}

// issue is a TokenRequester whose tokens last as long as was asked for.
func (w *world) issue(_ context.Context, _, account string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if account == "nobody" {
		return nil, apierrors.NewNotFound(corev1.Resource("serviceaccount"), account)
	}
	w.asked = append(w.asked, req.Spec)
	req.Status = authenticationv1.TokenRequestStatus{Token: fmt.Sprint("token-", len(w.asked)),
		ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second))}
	return req, nil
}

func (w *world) configMap(name, value string) {
	w.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": value}}
	_, err := client.Mutate(context.Background(), w.c, api.Key{Namespace: "default", Name: name}, "", func(have *corev1.ConfigMap) bool { have.Data = cm.Data; return true })
	if apierrors.IsNotFound(err) {
		clienttest.Create(w.t, w.c, cm)
		err = nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

// pod shows a ConfigMap and a Secret in its volumes.
func pod(uid string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid)}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{
		{Name: "m", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}}},
		{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}}}
}

func TestAWatchEndsWithTheLastPodThatNeedsIt(t *testing.T) {
	inBubble(t, func(w *world) {
		a, b := &user{uid: "a"}, &user{uid: "b"}
		w.Use(a, pod("a"))
		w.Use(b, pod("b"))
		w.Use(b, pod("b")) // again, as volumes are refreshed
		synctest.Wait()
		if n := len(w.watches); n != 2 {
			t.Errorf("%d watches, want one for the ConfigMap and one for the Secret", n)
		}
		for _, u := range []*user{a, b} { // they may have been set up from a state before the watch
			if slices.Sort(u.changes); fmt.Sprint(u.changes) != "[ConfigMap/m Secret/s]" {
				t.Errorf("%s: %v, want a look at each when its watch begins", u.uid, u.changes)
			}
			u.changes = nil
		}
		w.configMap("m", "1")
		w.configMap("other", "1")
		if fmt.Sprint(a.changes, b.changes) != "[ConfigMap/m] [ConfigMap/m]" {
			t.Errorf("a %v, b %v: want the change of m for both", a.changes, b.changes)
		}
		w.Release(a)
		w.configMap("m", "2")
		if len(a.changes) != 1 || len(b.changes) != 2 {
			t.Errorf("a %v, b %v: want news for b alone", a.changes, b.changes)
		}
		w.Release(b)
		w.configMap("m", "3")
		if len(b.changes) != 2 || len(w.watches) != 0 {
			t.Errorf("b %v, %d watches: want none", b.changes, len(w.watches))
		}
	})
}

func TestTokensAreKeptUntilTheyAreRenewed(t *testing.T) {
	inBubble(t, func(w *world) {
		seconds := int64(1000)
		p := &corev1.ServiceAccountTokenProjection{Audience: "vault", ExpirationSeconds: &seconds}
		get := func() string {
			t.Helper()
			token, renew, err := w.Token(context.Background(), pod("a"), p)
			if err != nil || renew.Before(time.Now()) {
				t.Fatal(token, renew, err)
			}
			return token
		}
		if first, again := get(), get(); first != again || len(w.asked) != 1 {
			t.Errorf("%s, then %s", first, again)
		}
		if s := w.asked[0]; s.Audiences[0] != "vault" || s.BoundObjectRef.UID != "a" || *s.ExpirationSeconds != 1000 {
			t.Errorf("asked for %+v", s)
		}
		time.Sleep(799 * time.Second)
		if get() != "token-1" {
			t.Error("renewed before 80 % of its life")
		}
		time.Sleep(2 * time.Second)
		if get() != "token-2" {
			t.Error("not renewed after 80 % of its life")
		}
		w.Release(&user{uid: "a"})
		if get() != "token-3" {
			t.Error("the token of a pod that was released is kept")
		}
	})
}

func TestWhatIsMissingIsSaidInTheKubeletsWords(t *testing.T) {
	inBubble(t, func(w *world) {
		if _, err := w.ConfigMap(context.Background(), "default", "m"); err == nil || err.Error() != `configmap "m" not found` {
			t.Error(err)
		}
		if _, err := w.Secret(context.Background(), "default", "s"); err == nil || err.Error() != `secret "s" not found` {
			t.Error(err)
		}
		p := pod("a")
		p.Spec.ServiceAccountName = "nobody"
		if _, _, err := w.Token(context.Background(), p, &corev1.ServiceAccountTokenProjection{}); err == nil || err.Error() != `failed to fetch token: serviceaccount "nobody" not found` {
			t.Error(err)
		}
		w.Tokens = nil
		if _, _, err := w.Token(context.Background(), p, &corev1.ServiceAccountTokenProjection{}); err == nil {
			t.Error("an agent that cannot ask for tokens has one")
		}
	})
}

func TestHollowPodsWatchNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		w.Hollow = true
		w.Use(&user{uid: "a"}, pod("a"))
		if services, err := w.Services(context.Background(), "default"); len(w.watches) != 0 || services != nil || err != nil {
			t.Error(len(w.watches), services, err)
		}
	})
}
