package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// runWith runs the plugin with these variables and this configuration.
func runWith(env map[string]string, config string) (int, string) {
	var out bytes.Buffer
	code := run(func(k string) string { return env[k] }, strings.NewReader(config), &out)
	return code, out.String()
}

func TestVersionNeedsNoAgent(t *testing.T) {
	code, out := runWith(map[string]string{"CNI_COMMAND": "VERSION"}, "")
	if code != 0 || !strings.Contains(out, `"supportedVersions"`) {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestWithoutAgent(t *testing.T) {
	config := `{"cniVersion":"1.0.0","socket":"` + filepath.Join(t.TempDir(), "none") + `"}`
	for command, want := range map[string]int{"ADD": tryAgain, "DEL": tryAgain, "STATUS": notAvailable} {
		code, out := runWith(map[string]string{"CNI_COMMAND": command}, config)
		var e struct {
			CNIVersion string
			Code       int
			Msg        string
		}
		if err := json.Unmarshal([]byte(out), &e); err != nil || code != 1 || e.Code != want || e.CNIVersion != "1.0.0" || e.Msg == "" {
			t.Errorf("%s: exit %d, %s (%v), want code %d", command, code, out, err, want)
		}
	}
	if code, out := runWith(map[string]string{"CNI_COMMAND": "ADD"}, "nonsense"); code != 1 || !strings.Contains(out, `"code":6`) {
		t.Errorf("nonsense as configuration: exit %d, %s", code, out)
	}
}

func TestAgentAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		code         int
		out          string
	}{
		{"success", `{"output":{"ips":[]}}`, 0, `{"ips":[]}`},
		{"success without output", `{}`, 0, ``},
		{"failure", `{"failed":true,"output":{"code":7}}`, 1, `{"code":7}`},
		{"half an answer", `{"output":`, 1, `"code":11`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := make(chan string, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					got <- err.Error()
					return
				}
				defer c.Close()
				data, _ := io.ReadAll(c)
				c.Write([]byte(tc.answer))
				got <- string(data)
			}()
			config := `{"cniVersion":"1.1.0","socket":"` + socket + `"}`
			code, out := runWith(map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "abc", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nowhere", "CNI_ARGS": "K=V"}, config)
			if code != tc.code || !strings.Contains(out, tc.out) || (tc.out == "" && out != "") {
				t.Errorf("exit %d, %q; want %d, %q", code, out, tc.code, tc.out)
			}
			var req map[string]any
			if err := json.Unmarshal([]byte(<-got), &req); err != nil || req["command"] != "ADD" || req["containerID"] != "abc" ||
				req["ifName"] != "eth0" || req["netns"] != "/nowhere" || req["args"] != "K=V" || req["config"].(map[string]any)["socket"] != socket {
				t.Errorf("request %v (%v)", req, err)
			}
		})
	}
}
