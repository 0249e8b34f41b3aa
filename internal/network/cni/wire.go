// Package cni connects pods to the node's network, as a CNI plugin (specification 1.1.0).
//
// What flows through it: the container runtime runs the small knarr-cni binary for each sandbox; that forwards its
// environment, standard input and the open network namespace over a unix socket to the [Server] in the agent; the
// [Plugin] allocates an address, makes a point-to-point veth pair and answers with a CNI result. What must stay true: ADD, DEL
// and CHECK may come again, in any state a crash left, and DEL succeeds where nothing is left to delete; links of other
// instances and of others are never touched; a third-party CNI plugin can stand in, as nothing else in Knarr knows how a
// pod got its address (docs/adr/0004). Tests: TestBadCallsAreAnsweredWithCNIErrors; TestRestartKeepsConnectionsAndReclaims,
// TestOtherInstancesStay (internal/network).
package cni

import "encoding/json"

// Request is what the knarr-cni binary sends: the parameters of a CNI call as the specification gives them in the
// environment, and the network configuration from standard input. The open network namespace, if any, travels as a file
// descriptor (SCM_RIGHTS), so that the agent need not see the same mounts as the runtime.
type Request struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID"`
	NetNS       string          `json:"netns"`
	IfName      string          `json:"ifName"`
	Args        string          `json:"args"`
	Path        string          `json:"path"`
	Config      json.RawMessage `json:"config"`
}

// Response is what the binary prints and exits with.
type Response struct {
	Output json.RawMessage `json:"output,omitempty"`
	Failed bool            `json:"failed,omitempty"`
}

// Error is the error object of the CNI specification.
type Error struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

func (e *Error) Error() string { return e.Msg }

// Error codes of the CNI specification.
const (
	codeIncompatibleVersion = 1
	codeUnknownContainer    = 3
	codeInvalidEnvironment  = 4
	codeDecode              = 6
	codeInvalidConfig       = 7
	codeTryAgain            = 11
	codeInternal            = 999
)

// config is the part of the network configuration that the plugin reads.
type config struct {
	CNIVersion    string `json:"cniVersion"`
	Name          string `json:"name"`
	RuntimeConfig struct {
		PortMappings []portMapping `json:"portMappings"`
	} `json:"runtimeConfig"`
	Attachments *[]attachment `json:"cni.dev/valid-attachments"` // GC only
}

// portMapping is one entry of the portMappings capability (CNI conventions).
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

type attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// result is the success answer of ADD.
type result struct {
	CNIVersion string            `json:"cniVersion"`
	Interfaces []resultInterface `json:"interfaces"`
	IPs        []resultIP        `json:"ips"`
	Routes     []resultRoute     `json:"routes"`
	DNS        struct{}          `json:"dns"`
}

type resultInterface struct {
	Name    string `json:"name"`
	Mac     string `json:"mac"`
	MTU     int    `json:"mtu,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
}

type resultIP struct {
	Address   string `json:"address"`
	Gateway   string `json:"gateway,omitempty"`
	Interface int    `json:"interface"`
}

type resultRoute struct {
	Dst string `json:"dst"`
	GW  string `json:"gw,omitempty"`
}

// versions are the specification versions whose result format this is.
var versions = []string{"1.0.0", "1.1.0"}
