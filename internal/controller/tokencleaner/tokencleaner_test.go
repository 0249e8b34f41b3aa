package tokencleaner

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server/authn"
)

// TestTokensGoWhenTheirTimeIsOver: one without an end, one whose end cannot be read, Secrets of another type or namespace, and one whose
// time was made longer, stay.
func TestTokensGoWhenTheirTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- (&controller.Runner{Client: c, Log: slog.New(slog.DiscardHandler)}).Run(ctx, New(c))
		}()
		clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
		hour := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		for _, s := range []struct{ namespace, name, kind, expiration string }{
			{"kube-system", "hour", string(authn.BootstrapTokenType), hour},
			{"kube-system", "prolonged", string(authn.BootstrapTokenType), hour},
			{"kube-system", "forever", string(authn.BootstrapTokenType), ""},
			{"kube-system", "opaque", "Opaque", hour},
			{"default", "elsewhere", string(authn.BootstrapTokenType), hour},
		} {
			data := map[string][]byte{"token-id": []byte("abcdef")}
			if s.expiration != "" {
				data["expiration"] = []byte(s.expiration)
			}
			clienttest.Create(t, c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name}, Type: corev1.SecretType(s.kind), Data: data})
		}
		names := func() []string {
			synctest.Wait()
			list, err := client.List[*corev1.Secret](t.Context(), c, client.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, s := range list {
				out = append(out, s.Name)
			}
			slices.Sort(out)
			return out
		}
		time.Sleep(59 * time.Minute)
		if got := names(); len(got) != 5 {
			t.Fatalf("before the time is over: %v", got)
		}
		_, err := client.Mutate(t.Context(), c, api.Key{Namespace: "kube-system", Name: "prolonged"}, "", func(s *corev1.Secret) bool {
			s.Data = map[string][]byte{"expiration": []byte(time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339))}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if got := names(); !slices.Equal(got, []string{"elsewhere", "forever", "opaque", "prolonged"}) {
			t.Errorf("after an hour: %v", got)
		}
		time.Sleep(24 * time.Hour)
		if got := names(); !slices.Equal(got, []string{"elsewhere", "forever", "opaque"}) {
			t.Errorf("after a day: %v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
