// Package e2e holds the agent's tests on the real containerd that comes with Knarr: what the fake runtime cannot show - mounts, users,
// control groups, signals, logs.
//
// What flows through it: pods created at a real front door over memory, run by the real agent with host network. What must stay
// true: every test leaves the machine as it was; they run only with KNARR_E2E=1, because they need root and bin/libexec.
package e2e
