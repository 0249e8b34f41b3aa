package pod

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// endMark is what an agent that is restarted while a pod ends has to know: when the grace period began, why the node ended the pod, and
// whose preStop hook is over. Neither the API nor the runtime has it. It is a file in the pod's directory, and goes with that.
//
// A hook that was cut off with the agent is run again, in what is left of the grace period: it is to be run at least once
// (https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/#hook-delivery-guarantees). One that ended is not.
type endMark struct {
	Since   time.Time          `json:"since"`
	Failure *lifecycle.Failure `json:"failure,omitempty"`
	Hurry   bool               `json:"hurry,omitempty"`
	// Hooked are the IDs of the containers whose preStop hook has ended.
	Hooked []string `json:"hooked,omitempty"`
}

func (w *Worker) endMarkPath() string {
	return filepath.Join(w.host.Node.PodDir, string(w.uid), "ending")
}

// markEnd writes down that the pod ends, or how far it has come. w.mu must be held.
func (w *Worker) markEnd() {
	if w.host.Node.PodDir == "" {
		return
	}
	b, err := json.Marshal(endMark{Since: w.mem.Terminating, Failure: w.mem.Failure, Hurry: w.mem.Hurry, Hooked: w.end.hooked})
	if err == nil {
		err = replaceFile(w.endMarkPath(), b)
	}
	w.host.warn("noting that a pod ends", err, "pod", w.key)
}

// resumeEnd goes on where an earlier agent was with the end of the pod. w.mu must be held.
func (w *Worker) resumeEnd() {
	if w.host.Node.PodDir == "" {
		return
	}
	b, err := os.ReadFile(w.endMarkPath())
	if err != nil {
		return // it was not ending
	}
	var m endMark
	if err := json.Unmarshal(b, &m); err != nil || m.Since.IsZero() {
		w.host.Log.Warn("what was noted about the end of a pod cannot be read: it begins anew", "pod", w.key, "err", err)
		return
	}
	if now := time.Now(); m.Since.After(now) { // the clock was set back
		m.Since = now
	}
	w.mem.Terminating, w.mem.Failure, w.mem.Hurry = m.Since, m.Failure, m.Hurry
	w.end.hooked, w.end.resumed = m.Hooked, true
}

// hookEnded notes that a container's preStop hook is over.
func (w *Worker) hookEnded(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end.hooked = append(w.end.hooked, id)
	if !w.mem.Terminating.IsZero() {
		w.markEnd()
	}
}

// hookPending reports whether a container's preStop hook is still to be run.
func (w *Worker) hookPending(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.Contains(w.end.hooked, id)
}

// replaceFile writes a file so that a reader finds all of it or what was there before.
func replaceFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o640); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
