package cni

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/network/ipam"
)

func testPlugin(t *testing.T) *Plugin {
	t.Helper()
	pool, err := ipam.Open(t.TempDir(), netip.MustParsePrefix("10.244.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(context.Context, ipam.Allocation) error { return nil }
	return &Plugin{Pool: pool, Admit: nothing, Dismiss: nothing, MTU: func() int { return 1500 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		SetHostPorts: func(context.Context, ipam.Owner, []netip.Addr, []ipam.HostPort) error { return nil }}
}

// exchange sends one request to a server with p and returns its answer.
func exchange(t *testing.T, p *Plugin, request string) Response {
	t.Helper()
	s := &Server{Socket: filepath.Join(t.TempDir(), "run", "cni.sock"), Plugin: p, Log: p.Log}
	l, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	conn.CloseWrite()
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	var resp Response
	if err := json.Unmarshal(data, &resp); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return resp
}

func TestBadCallsAreAnsweredWithCNIErrors(t *testing.T) {
	const conf = `{"cniVersion":"1.1.0","name":"knarr"}`
	for _, tc := range []struct {
		name, request string
		code          uint
		says          string
	}{
		{"not JSON", `{`, codeInternal, "request"},
		{"no configuration", `{"command":"ADD"}`, codeDecode, "network configuration"},
		{"unknown version", `{"command":"ADD","config":{"cniVersion":"0.2.0"}}`, codeIncompatibleVersion, "0.2.0"},
		{"unknown command", `{"command":"FLY","config":` + conf + `}`, codeInvalidEnvironment, "FLY"},
		{"no container", `{"command":"ADD","ifName":"eth0","config":` + conf + `}`, codeInvalidEnvironment, "CNI_CONTAINERID"},
		{"no interface", `{"command":"DEL","containerID":"x","config":` + conf + `}`, codeInvalidEnvironment, "CNI_IFNAME"},
		{"no namespace", `{"command":"ADD","containerID":"x","ifName":"eth0","netns":"/nowhere","config":` + conf + `}`, codeUnknownContainer, "/nowhere"},
		{"GC without a list", `{"command":"GC","config":` + conf + `}`, codeInvalidConfig, "valid-attachments"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp := exchange(t, testPlugin(t), tc.request)
			var e Error
			if err := json.Unmarshal(resp.Output, &e); err != nil || !resp.Failed {
				t.Fatalf("answer %+v (%v), want a failure", resp, err)
			}
			if e.Code != tc.code || !strings.Contains(e.Msg, tc.says) || e.CNIVersion == "" {
				t.Errorf("got %+v, want code %d saying %q", e, tc.code, tc.says)
			}
		})
	}
	if resp := exchange(t, testPlugin(t), `{"command":"STATUS","config":`+conf+`}`); resp.Failed || resp.Output != nil {
		t.Errorf("STATUS: %+v", resp)
	}
}

func TestHostPorts(t *testing.T) {
	for _, tc := range []struct {
		in   portMapping
		want string // "" is no host port at all, "!" an error
	}{
		{portMapping{HostPort: 80, ContainerPort: 8080}, "invalid IP 80 8080 tcp"},
		{portMapping{HostPort: 80, ContainerPort: 8080, Protocol: "UDP", HostIP: "0.0.0.0"}, "0.0.0.0 80 8080 udp"},
		{portMapping{HostPort: 80, ContainerPort: 8080, Protocol: "sctp", HostIP: "192.0.2.1"}, "192.0.2.1 80 8080 sctp"},
		{portMapping{ContainerPort: 8080}, ""},
		{portMapping{HostPort: 80, ContainerPort: 8080, HostIP: "::1"}, "::1 80 8080 tcp"},
		{portMapping{HostPort: 65536, ContainerPort: 8080}, "!"},
		{portMapping{HostPort: 80, ContainerPort: 0}, "!"},
		{portMapping{HostPort: 80, ContainerPort: 80, Protocol: "icmp"}, "!"},
		{portMapping{HostPort: 80, ContainerPort: 80, HostIP: "localhost"}, "!"},
	} {
		out, err := hostPorts([]portMapping{tc.in})
		got := ""
		switch {
		case err != nil:
			got = "!"
		case len(out) == 1:
			p := out[0]
			got = strings.Join([]string{p.HostIP.String(), itoa(p.HostPort), itoa(p.ContainerPort), p.Protocol}, " ")
		}
		if got != tc.want {
			t.Errorf("%+v: got %q (%v), want %q", tc.in, got, err, tc.want)
		}
	}
}

func itoa(n uint16) string { b, _ := json.Marshal(n); return string(b) }

func TestLinkNames(t *testing.T) {
	seen := map[string]bool{}
	for _, args := range [][3]string{{"", "a", "eth0"}, {"x", "a", "eth0"}, {"", "b", "eth0"}, {"", "a", "eth1"}} {
		name := LinkName(args[0], args[1], args[2])
		if len(name) > 15 || !strings.HasPrefix(name, LinkPrefix) || seen[name] || name != LinkName(args[0], args[1], args[2]) {
			t.Errorf("%v: %q is too long, taken or not stable", args, name)
		}
		seen[name] = true
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"command":"DEL","containerID":"x","ifName":"eth0","config":{"cniVersion":"1.1.0"}}`))
	f.Add([]byte(`{"command":"STATUS","config":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var req Request
		if json.Unmarshal(data, &req) != nil || req.Command == "DEL" {
			return // DEL would look for links
		}
		p := &Plugin{SetHostPorts: nil, Pool: nil, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		if req.Command == "GC" {
			return // needs the pool
		}
		if out, err := p.Handle(t.Context(), &req, -1); err == nil && out != nil {
			t.Errorf("%s answered %v without a namespace", data, out)
		}
	})
}
