package containerd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// options returns complete options without touching the machine.
func options(t *testing.T, dataDir string) *Options {
	t.Helper()
	o := &Options{DataDir: dataDir, Snapshotter: "overlayfs"}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestConfig(t *testing.T) {
	o := options(t, "/var/lib/knarr")
	text, err := config(o, machine{})
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := toml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	at := func(path ...string) any {
		var v any = doc
		for _, p := range path {
			m, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			v = m[p]
		}
		return v
	}
	const cri, runtime, images = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"
	for _, test := range []struct {
		path string
		want any
	}{
		{"version", int64(4)},
		{"root", "/var/lib/knarr/containerd/root"},
		{"state", "/var/lib/knarr/containerd/state"},
		{"oom_score", int64(0)},
		{"plugins|io.containerd.server.v1.grpc|address", "/var/lib/knarr/containerd/containerd.sock"},
		{"plugins|io.containerd.server.v1.ttrpc|address", "/var/lib/knarr/containerd/containerd.sock.ttrpc"},
		{"plugins|io.containerd.shim.v1.manager|socket_dir", "/var/lib/knarr/containerd/s"},
		{"plugins|" + cri + "|enable_tls_streaming", true},
		{"plugins|" + cri + "|stream_server_address", "127.0.0.1"},
		{"plugins|" + cri + "|x509_key_pair_streaming|tls_cert_file", "/var/lib/knarr/containerd/streams.pem"},
		{"plugins|" + cri + "|x509_key_pair_streaming|tls_key_file", "/var/lib/knarr/containerd/streams.pem"},
		{"plugins|" + images + "|snapshotter", "overlayfs"},
		{"plugins|" + images + "|pinned_images|sandbox", PauseImage},
		{"plugins|" + images + "|registry|config_path", "/var/lib/knarr/registry"},
		{"plugins|" + runtime + "|restrict_oom_score_adj", true},
		{"plugins|" + runtime + "|max_container_log_line_size", int64(16384)},
		{"plugins|" + runtime + "|cni|conf_dir", "/var/lib/knarr/cni/conf"},
		{"plugins|" + runtime + "|containerd|runtimes|runc|runtime_path", "/var/lib/knarr/bin/containerd-shim-runc-v2"},
		{"plugins|" + runtime + "|containerd|runtimes|runc|options|BinaryName", "/var/lib/knarr/bin/runc"},
		{"plugins|" + runtime + "|containerd|runtimes|runc|options|Root", "/var/lib/knarr/containerd/runc"},
	} {
		if got := at(strings.Split(test.path, "|")...); got != test.want {
			t.Errorf("%s is %#v, want %#v", test.path, got, test.want)
		}
	}
	// Every path is below the data directory, so that several nodes fit on one machine, but for those where every driver of devices writes
	// its specifications.
	cdi := []string{"/etc/cdi", "/var/run/cdi"}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, v := range v {
				walk(path+"|"+k, v)
			}
		case []any:
			for _, v := range v {
				walk(path, v)
			}
		case string:
			if strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "/var/lib/knarr/") && !slices.Contains(cdi, v) {
				t.Errorf("%s is %s, outside the data directory", path, v)
			}
		}
	}
	walk("", doc)

	able, err := config(o, machine{mayLowerOOMScore: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oom_score = -999\n", "restrict_oom_score_adj = false\n"} {
		if !strings.Contains(able, want) {
			t.Errorf("with CAP_SYS_RESOURCE the configuration lacks %q", want)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{`plain`, `back\slash`, `"quoted"`, `ünïcode`, `a b`} {
		q, err := quote(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		var doc struct{ V string }
		if err := toml.Unmarshal([]byte("V = "+q), &doc); err != nil || doc.V != s {
			t.Errorf("%q became %s and was read as %q, %v", s, q, doc.V, err)
		}
	}
	for _, s := range []string{"line\nbreak", "nul\x00", "not UTF-8 \xff"} {
		if q, err := quote(s); err == nil {
			t.Errorf("%q became %s", s, q)
		}
	}
}

// TestLoadConfigRefuses: a configuration that would take the machine's own containerd's socket must never start.
func TestLoadConfigRefuses(t *testing.T) {
	const grpc = "[plugins.\"io.containerd.server.v1.grpc\"]\naddress = %\n"
	const ttrpc = "[plugins.\"io.containerd.server.v1.ttrpc\"]\naddress = %\n"
	section := func(s, address string) string { return strings.ReplaceAll(s, "%", `"`+address+`"`) }
	good := "version = 4\n" + section(grpc, "/data/c.sock") + section(ttrpc, "/data/c.sock.ttrpc")
	for _, test := range []struct{ name, config, want string }{
		{"no addresses", "version = 4\n", `"" is not an absolute path`},
		{"an old version", strings.Replace(good, "version = 4", "version = 3", 1), "version is 3, want 4"},
		{"no ttrpc address", "version = 4\n" + section(grpc, "/data/c.sock"), "ttrpc address"},
		{"the default address", strings.Replace(good, "/data/c.sock\"", "/run/containerd/containerd.sock\"", 1), "belongs to the machine's own containerd"},
		{"a relative address", strings.Replace(good, "/data/c.sock\"", "c.sock\"", 1), "not an absolute path"},
		{"a long address", strings.Replace(good, "/data/c.sock\"", "/"+strings.Repeat("d", 120)+"\"", 1), "has 121 bytes; a unix socket's path may have 107"},
		{"a log level that is none", good + "[debug]\nlevel = \"loud\"\n", "debug.level"},
		{"good", good, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := loadConfig(context.Background(), file)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{DataDir: "data", Snapshotter: "native"}, "not an absolute path"},
		{Options{DataDir: "/" + strings.Repeat("long/", 20), Snapshotter: "native"}, "choose a shorter data directory"},
		{Options{DataDir: "/data,more", Snapshotter: "native"}, "a comma or a colon"},
		{Options{DataDir: "/data", Snapshotter: "zfs"}, "want overlayfs or native"},
	} {
		if _, err := New(test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want %q", test.o, err, test.want)
		}
	}
}

func TestShimSockets(t *testing.T) {
	long := "/" + strings.Repeat("d", 40)
	for dir, want := range map[string]string{
		"/var/lib/knarr": "/var/lib/knarr/containerd/s",
		long:             "/run/knarr-shims/",
	} {
		if got := shimSockets(dir); !strings.HasPrefix(got, want) || len(got) > maxShimSockets {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
	if shimSockets(long) == shimSockets(long+"e") {
		t.Error("two data directories share a directory of sockets")
	}
}
