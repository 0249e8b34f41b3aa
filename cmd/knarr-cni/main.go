// Command knarr-cni is the CNI plugin that the container runtime runs for every sandbox. It does nothing itself: it
// forwards the call to the Knarr agent over the unix socket that its network configuration names, with the open network
// namespace beside it, and prints the answer.
//
// What must stay true: it is small and starts in a few milliseconds, because it runs twice per pod; it keeps to the
// standard library. Tests: TestVersionNeedsNoAgent, TestWithoutAgent and, for its imports, TestImportsPointDown.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// notAvailable is the CNI specification's error code for "the plugin is not available"; tryAgain asks the runtime to retry.
const (
	decodeFailed = 6
	tryAgain     = 11
	notAvailable = 50
)

func main() {
	os.Exit(run(os.Getenv, os.Stdin, os.Stdout))
}

// run handles one CNI call and returns the exit code.
func run(env func(string) string, in io.Reader, out io.Writer) int {
	command := env("CNI_COMMAND")
	if command == "VERSION" {
		fmt.Fprintln(out, `{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}`)
		return 0
	}
	config, err := io.ReadAll(in)
	var conf struct {
		CNIVersion string `json:"cniVersion"`
		Socket     string `json:"socket"`
	}
	if err == nil {
		err = json.Unmarshal(config, &conf)
	}
	if err != nil {
		return fail(out, "1.1.0", decodeFailed, "network configuration: "+err.Error())
	}
	output, failed, err := call(conf.Socket, env, config)
	if err != nil {
		code := tryAgain
		if command == "STATUS" {
			code = notAvailable
		}
		return fail(out, conf.CNIVersion, code, "the Knarr agent does not answer on "+conf.Socket+": "+err.Error())
	}
	out.Write(output)
	if failed {
		return 1
	}
	return 0
}

// call sends the request to the agent; see Request and Response in internal/network/cni.
func call(socket string, env func(string) string, config json.RawMessage) (output []byte, failed bool, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	request, err := json.Marshal(map[string]any{
		"command": env("CNI_COMMAND"), "containerID": env("CNI_CONTAINERID"), "netns": env("CNI_NETNS"),
		"ifName": env("CNI_IFNAME"), "args": env("CNI_ARGS"), "path": env("CNI_PATH"), "config": config,
	})
	if err != nil {
		return nil, false, err
	}
	var rights []byte
	if path := env("CNI_NETNS"); path != "" {
		// Without a namespace (a DEL after a reboot) the agent decides what to make of it.
		if f, err := os.Open(path); err == nil {
			defer f.Close()
			rights = syscall.UnixRights(int(f.Fd()))
		}
	}
	n, _, err := conn.WriteMsgUnix(request, rights, nil)
	if err != nil {
		return nil, false, err
	}
	if _, err := conn.Write(request[n:]); err != nil {
		return nil, false, err
	}
	if err := conn.CloseWrite(); err != nil {
		return nil, false, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return nil, false, err
	}
	var response struct {
		Output json.RawMessage `json:"output"`
		Failed bool            `json:"failed"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, false, fmt.Errorf("unfinished answer: %w", err)
	}
	return response.Output, response.Failed, nil
}

// fail prints an error object of the CNI specification.
func fail(out io.Writer, version string, code int, msg string) int {
	if version == "" {
		version = "1.1.0"
	}
	data, err := json.Marshal(map[string]any{"cniVersion": version, "code": code, "msg": msg})
	if err == nil {
		out.Write(data)
	}
	return 1
}
