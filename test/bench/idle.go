package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// measureIdle looks at a control plane without nodes and without work.
func measureIdle(ctx context.Context, b *bench) (_ []figure, err error) {
	s, err := b.startServer(ctx, filepath.Join(b.dir, "idle"), "--no-agent")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(s.dataDir)) }()
	return b.watchIdle(ctx, s, "<= 100 MB", "<= 0.5 %", nil)
}

// watchIdle waits until s has come to rest and measures its memory and CPU. others are further processes that belong to it, by name.
func (b *bench) watchIdle(ctx context.Context, s *server, memoryGoal, cpuGoal string, others func() (map[string][]int, error)) ([]figure, error) {
	settle, watch := 10*time.Second, 60*time.Second
	if b.quick {
		watch = 15 * time.Second
	}
	if err := sleep(ctx, settle); err != nil {
		return nil, err
	}
	processes := map[string][]int{}
	if others != nil {
		var err error
		if processes, err = others(); err != nil {
			return nil, err
		}
	}
	processes["knarr server"] = []int{s.cmd.Process.Pid}
	before := map[string]time.Duration{}
	for name, pids := range processes {
		for _, pid := range pids {
			used, err := processCPU(pid)
			if err != nil {
				return nil, err
			}
			before[name] += used
		}
	}
	if err := sleep(ctx, watch); err != nil {
		return nil, err
	}
	var out []figure
	for _, name := range []string{"knarr server", "containerd"} {
		pids := processes[name]
		if len(pids) == 0 {
			continue
		}
		var memory, anonymous float64
		used := -before[name]
		for _, pid := range pids {
			cpu, err1 := processCPU(pid)
			rss, err2 := processMemory(pid, "VmRSS")
			anon, err3 := processMemory(pid, "RssAnon")
			if err := errors.Join(err1, err2, err3); err != nil {
				return nil, err
			}
			used, memory, anonymous = used+cpu, memory+rss, anonymous+anon
		}
		goals := [2]string{}
		if name == "knarr server" {
			goals = [2]string{memoryGoal, cpuGoal}
		}
		out = append(out,
			figure{name + ", RSS", fmt.Sprintf("%.0f MB", memory), goals[0], fmt.Sprintf("of which %.0f MB anonymous, the rest pages of the executable", anonymous)},
			figure{name + ", CPU", fmt.Sprintf("%.2f %%", 100*used.Seconds()/watch.Seconds()), goals[1], fmt.Sprintf("of a core, over %v", watch)})
	}
	return out, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
