package machine

import (
	"net/netip"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestTheServerIsReachedWhereItListens(t *testing.T) {
	for at, want := range map[string]string{"0.0.0.0:6443": "127.0.0.1:6443", "[::]:7443": "[::1]:7443", "127.0.0.1:7443": "127.0.0.1:7443", "192.0.2.2:6443": "192.0.2.2:6443"} {
		if got := listened(netip.MustParseAddrPort(at)).String(); got != want {
			t.Errorf("a server that listens at %s is asked at %s, want %s", at, got, want)
		}
	}
}

func TestAnswersThatSayWhatIsWrong(t *testing.T) {
	err := answered(404, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"no such metric"}`))
	if !apierrors.IsNotFound(err) || err.Error() != "no such metric" {
		t.Errorf("error %v", err)
	}
	if err := answered(502, []byte("bad gateway")); err == nil || err.Error() != "the API answered 502" {
		t.Errorf("error %v", err)
	}
}
