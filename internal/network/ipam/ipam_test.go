package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func owner(i int) Owner { return Owner{ContainerID: fmt.Sprintf("sandbox-%d", i), IfName: "eth0"} }

func TestAllocateAllThenFull(t *testing.T) {
	for _, cidr := range []string{"10.244.0.0/29", "10.244.3.0/24", "fd00:10:244::/120", "10.1.0.0/22"} {
		t.Run(cidr, func(t *testing.T) {
			prefix := netip.MustParsePrefix(cidr)
			p, err := Open(t.TempDir(), prefix)
			if err != nil {
				t.Fatal(err)
			}
			want := 1<<(prefix.Addr().BitLen()-prefix.Bits()) - 3
			seen := map[netip.Addr]bool{}
			for i := range want {
				a, err := p.Allocate(Allocation{Owner: owner(i)})
				if err != nil {
					t.Fatalf("allocation %d of %d: %v", i, want, err)
				}
				if seen[a.Addr] || !prefix.Contains(a.Addr) {
					t.Fatalf("allocation %d: %v is taken or outside of %v", i, a.Addr, prefix)
				}
				seen[a.Addr] = true
			}
			if _, err := p.Allocate(Allocation{Owner: owner(want)}); !errors.Is(err, ErrFull) {
				t.Fatalf("allocating from a full pool: %v, want ErrFull", err)
			}
			first := prefix.Addr()
			if seen[first] || seen[first.Next()] {
				t.Fatalf("network address or node address was handed out")
			}
		})
	}
}

func TestSameOwnerKeepsItsAddress(t *testing.T) {
	p, err := Open(t.TempDir(), netip.MustParsePrefix("10.244.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := p.Allocate(Allocation{Owner: owner(1), Link: "knabc"})
	b, _ := p.Allocate(Allocation{Owner: owner(1)})
	if a.Addr != b.Addr || b.Link != "knabc" {
		t.Fatalf("second allocation %+v, want %+v", b, a)
	}
}

func TestFreedAddressIsReusedLast(t *testing.T) {
	p, err := Open(t.TempDir(), netip.MustParsePrefix("10.244.0.0/28"))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := p.Allocate(Allocation{Owner: owner(0)})
	if _, ok, err := p.Release(owner(0)); !ok || err != nil {
		t.Fatalf("release: %v %v", ok, err)
	}
	for i := 1; i < 13; i++ {
		a, err := p.Allocate(Allocation{Owner: owner(i)})
		if err != nil {
			t.Fatal(err)
		}
		if a.Addr == first.Addr {
			t.Fatalf("address %v came again as allocation %d of 13", a.Addr, i)
		}
	}
	if a, err := p.Allocate(Allocation{Owner: owner(13)}); err != nil || a.Addr != first.Addr {
		t.Fatalf("last free address: %v %v, want %v", a.Addr, err, first.Addr)
	}
}

func TestSurvivesRestartAndBrokenFiles(t *testing.T) {
	dir := t.TempDir()
	prefix := netip.MustParsePrefix("10.244.0.0/24")
	p, err := Open(dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Allocate(Allocation{Owner: owner(1), Link: "kn1", PodName: "web",
		HostPorts: []HostPort{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"10.244.0.9": "", "10.244.0.8": `{"address":"10.244.0.7","containerID":"x"}`, "10.244.0.6.tmp": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err = Open(dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	all := p.List()
	if len(all) != 1 || fmt.Sprint(all[0]) != fmt.Sprint(want) {
		t.Fatalf("after restart %+v, want only %+v", all, want)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Fatalf("%d files left, want 1", len(left))
	}
	if next, _ := p.Allocate(Allocation{Owner: owner(2)}); next.Addr == want.Addr {
		t.Fatalf("%v handed out twice", next.Addr)
	}
}

func TestChangedPrefixKeepsOldAllocations(t *testing.T) {
	dir := t.TempDir()
	p, _ := Open(dir, netip.MustParsePrefix("10.244.0.0/24"))
	old, _ := p.Allocate(Allocation{Owner: owner(1)})
	p, err := Open(dir, netip.MustParsePrefix("10.50.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := p.Get(owner(1)); !ok || got.Addr != old.Addr {
		t.Fatalf("allocation of the old prefix: %+v %v", got, ok)
	}
	if _, ok, err := p.Release(owner(1)); !ok || err != nil {
		t.Fatalf("release: %v %v", ok, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Fatalf("%d files left", len(left))
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, prefix := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.0/31"), netip.MustParsePrefix("10.0.0.1/32")} {
		if _, err := Open(t.TempDir(), prefix); err == nil {
			t.Errorf("Open(%v) succeeded", prefix)
		}
	}
}

// Whatever the order of allocations, releases and restarts: no address has two owners, none is lost.
func TestPoolProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ipam")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		prefix := netip.MustParsePrefix("10.244.0.0/27")
		p, _ := Open(dir, prefix)
		model := map[Owner]netip.Addr{}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				o := owner(rapid.IntRange(0, 40).Draw(t, "owner"))
				a, err := p.Allocate(Allocation{Owner: o})
				if _, had := model[o]; err != nil && (had || len(model) < 29) {
					t.Fatalf("allocate with %d of 29 in use: %v", len(model), err)
				}
				if err == nil {
					model[o] = a.Addr
				}
			},
			"release": func(t *rapid.T) {
				o := owner(rapid.IntRange(0, 40).Draw(t, "owner"))
				_, had := model[o]
				if _, ok, err := p.Release(o); ok != had || err != nil {
					t.Fatalf("release: %v %v, want %v", ok, err, had)
				}
				delete(model, o)
			},
			"restart": func(t *rapid.T) { p, _ = Open(dir, prefix) },
			"": func(t *rapid.T) {
				addrs := map[netip.Addr]bool{}
				for _, a := range p.List() {
					if model[a.Owner] != a.Addr || addrs[a.Addr] {
						t.Fatalf("%+v; model %v", a, model)
					}
					addrs[a.Addr] = true
				}
				if len(addrs) != len(model) {
					t.Fatalf("%d allocations, want %d", len(addrs), len(model))
				}
			},
		})
	})
}

func TestOneAddressOfEachPrefix(t *testing.T) {
	dir := t.TempDir()
	four, six := netip.MustParsePrefix("10.244.0.0/29"), netip.MustParsePrefix("fd00:244::/64")
	p, err := Open(dir, four, six)
	if err != nil {
		t.Fatal(err)
	}
	addrs := func(id string) string {
		t.Helper()
		a, err := p.Allocate(Allocation{Owner: Owner{ContainerID: id, IfName: "eth0"}})
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(a.Addrs())
	}
	if got := addrs("a"); got != "[10.244.0.2 fd00:244::2]" {
		t.Errorf("the first owner got %s", got)
	}
	if p, err = Open(dir, four, six); err != nil {
		t.Fatal(err)
	}
	if got := addrs("a"); got != "[10.244.0.2 fd00:244::2]" {
		t.Errorf("after a restart it has %s", got)
	}
	if got := addrs("b"); got != "[10.244.0.3 fd00:244::3]" {
		t.Errorf("the second owner got %s", got)
	}
	for _, id := range []string{"c", "d", "e"} {
		addrs(id)
	}
	if got := addrs("f"); !strings.Contains(got, "10.244.0.0/29") {
		t.Errorf("without a free IPv4 address: %s", got)
	}
	if _, ok, err := p.Release(Owner{ContainerID: "a", IfName: "eth0"}); !ok || err != nil {
		t.Errorf("Release: %v, %v", ok, err)
	}
	if got := addrs("f"); got != "[10.244.0.2 fd00:244::7]" {
		t.Errorf("once there is one: %s", got)
	}
}
