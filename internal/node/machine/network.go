package machine

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Network reads the counters of the interface with the default route and of hardware, from /proc/net (proc_pid_net(5)).
func Network(now time.Time) *kubelet.NetworkStats {
	byDefault := defaultInterface()
	f, err := os.Open("/proc/self/net/dev")
	if err != nil {
		return nil
	}
	defer f.Close()
	out := &kubelet.NetworkStats{Time: metav1.NewTime(now)}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, rest, ok := strings.Cut(strings.TrimSpace(s.Text()), ":")
		figures := strings.Fields(rest)
		if !ok || len(figures) < 11 {
			continue
		}
		if _, err := os.Stat(filepath.Join("/sys/class/net", name, "device")); err != nil && name != byDefault {
			continue
		}
		at := func(i int) *uint64 {
			n, err := strconv.ParseUint(figures[i], 10, 64)
			if err != nil {
				return nil
			}
			return &n
		}
		i := kubelet.InterfaceStats{Name: name, RxBytes: at(0), RxErrors: at(2), TxBytes: at(8), TxErrors: at(10)}
		if name == byDefault {
			out.InterfaceStats = i
		}
		out.Interfaces = append(out.Interfaces, i)
	}
	return out
}

func defaultInterface() string {
	f, err := os.Open("/proc/self/net/route")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 1 && f[1] == "00000000" {
			return f[0]
		}
	}
	return ""
}
