package server_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
)

// nodesToo is byHeader that knows nodes.
type nodesToo struct{ byHeader }

func (n nodesToo) Authenticate(r *http.Request) (user.Info, bool, error) {
	if name := r.Header.Get("X-User"); strings.HasPrefix(name, "system:node:") {
		return &user.DefaultInfo{Name: name, Groups: []string{user.NodesGroup, user.AllAuthenticated}}, true, nil
	}
	return n.byHeader.Authenticate(r)
}

// shared starts a server with the standard levels and schemas and a number of seats.
func shared(t testing.TB, seats int) *fixture {
	f := start(t, func(c *server.Config) { c.Seats, c.Authorizer, c.Authenticator = seats, everyone{}, nodesToo{} })
	for _, l := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		clienttest.Create(t, f.client, l.DeepCopy())
	}
	for _, s := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		clienttest.Create(t, f.client, s.DeepCopy())
	}
	return f
}

// TestAnswersNameWhatJudgedThem: who is served, and who is refused, learns by which objects; they count as soon as they are written.
func TestAnswersNameWhatJudgedThem(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Authenticator = nodesToo{} })
	if h := f.do("GET", configMaps, "", "X-User", "eve").Header; h.Get("X-Kubernetes-PF-FlowSchema-UID") != "" {
		t.Errorf("before there are any: %v", h)
	}
	level := clienttest.Create(t, f.client, &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: bootstrap.SuggestedPriorityLevelConfigurationSystem.Spec})
	schema := clienttest.Create(t, f.client, &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "mine"}, Rules: bootstrap.SuggestedFlowSchemaGlobalDefault.Spec.Rules}})
	a := f.do("GET", configMaps, "", "X-User", "eve")
	if h := a.Header; a.Code != http.StatusForbidden || h.Get("X-Kubernetes-PF-FlowSchema-UID") != string(schema.UID) || h.Get("X-Kubernetes-PF-PriorityLevel-UID") != string(level.UID) {
		t.Errorf("%d %v", a.Code, h)
	}
	figures := f.must("GET", "/metrics", "").Body
	contains(t, figures, `apiserver_flowcontrol_nominal_limit_seats{priority_level="mine"} 515`) // 30 shares of 35
	contains(t, figures, `apiserver_flowcontrol_dispatched_requests_total{flow_schema="exempt",priority_level="exempt"}`)
	dump := f.must("GET", "/debug/api_priority_and_fairness/dump_priority_levels", "").Body
	contains(t, dump, "PriorityLevelName,")
	contains(t, dump, "mine,")
	contains(t, f.must("GET", "/debug/api_priority_and_fairness/dump_queues", "").Body, "PriorityLevelName, Index,")
}

// sample is how long requests took.
type sample []time.Duration

func (s sample) quantile(q float64) time.Duration {
	slices.Sort(s)
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// tenants makes a level with four seats for all users but nodes, which neither lends nor borrows.
func (f *fixture) tenants() {
	shares, none := int32(10), int32(0)
	spec := bootstrap.SuggestedPriorityLevelConfigurationSystem.Spec.DeepCopy()
	spec.Limited.NominalConcurrencyShares, spec.Limited.LendablePercent, spec.Limited.BorrowingLimitPercent = &shares, &none, &none
	clienttest.Create(f.t, f.client, &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}, Spec: *spec})
	rules := bootstrap.SuggestedFlowSchemaGlobalDefault.Spec
	rules.MatchingPrecedence, rules.PriorityLevelConfiguration.Name = 9000, "tenants"
	clienttest.Create(f.t, f.client, &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}, Spec: rules})
}

// lists asks for all pods on many connections until stop is called, which returns how long that took each time.
func (f *fixture) lists(connections int, who string) (stop func() sample) {
	f.http.Transport.(*http.Transport).MaxIdleConnsPerHost = 2 * connections
	var over atomic.Bool
	var mu sync.Mutex
	var took sample
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for !over.Load() {
				req, err := http.NewRequest("GET", f.url+"/api/v1/pods", nil)
				if err != nil {
					return
				}
				req.Header.Set("X-User", who)
				began := time.Now()
				resp, err := f.http.Do(req)
				if err != nil {
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode == http.StatusOK {
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
				}
			}
		})
	}
	return func() sample {
		over.Store(true)
		wg.Wait()
		return took
	}
}

// TestNoisyUser: while one user lists all pods on many connections, the small requests of another of the same level and a node's heartbeats are all
// served. How long that takes depends on who else uses the machine; who is served before whom is what the tests of fair/ say, in virtual time.
func TestNoisyUser(t *testing.T) {
	f := shared(t, 100)
	f.tenants()
	objs := make([]api.Object, 500)
	for i := range objs {
		objs[i] = testPod(i)
	}
	for _, r := range f.client.CreateMany(t.Context(), objs) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	const leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	f.must("POST", leases, `{"metadata":{"name":"n"},"spec":{"leaseDurationSeconds":1}}`)
	stop := sync.OnceValue(f.lists(160, "noisy"))
	defer stop()
	for !strings.Contains(f.must("GET", "/metrics", "").Body, `apiserver_flowcontrol_request_wait_duration_seconds_bucket{execute="true",flow_schema="tenants"`) {
		time.Sleep(time.Millisecond)
	}
	var gets, beats sample
	for i := range 30 {
		began := time.Now()
		f.must("GET", "/api/v1/namespaces/default/pods/pod-00007", "", "X-User", "quiet")
		gets = append(gets, time.Since(began))
		began = time.Now()
		f.must("PATCH", leases+"/n", fmt.Sprintf(`{"spec":{"leaseDurationSeconds":%d}}`, 2+i), "X-User", "system:node:n", "Content-Type", "application/merge-patch+json")
		beats = append(beats, time.Since(began))
	}
	lists := stop()
	t.Logf("%d lists: half took %s; gets: half %s, 98 %% %s; heartbeats: half %s, 98 %% %s", len(lists), lists.quantile(.5),
		gets.quantile(.5), gets.quantile(.98), beats.quantile(.5), beats.quantile(.98))
}
