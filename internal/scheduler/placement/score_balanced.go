package placement

import (
	"math"

	"github.com/knarr-io/knarr/internal/amount"
)

// balance prefers nodes on which the pod brings the shares of cpu and memory in use closer together: 75 leaves
// them as they are, up to 100 improves, down to 50 worsens. Pods without requests have no preference.
var balance = score{name: "NodeResourcesBalancedAllocation", weight: 1, room: scoreBalance}

func scoreBalance(sh *shape, n *node, _ Options) int64 {
	if sh.requests.milliCPU == 0 && sh.requests.memory == 0 {
		return 0
	}
	milliCPU, memory := n.used.milliCPU.Int64(), n.used.memory.Int64()
	with := evenness(amount.Add(milliCPU, sh.requests.milliCPU), amount.Add(memory, sh.requests.memory), n)
	without := evenness(milliCPU, memory, n)
	return maxScore/2 + (maxScore/2+with-without)/2
}

// evenness is 100 minus the standard deviation, in percent, of the shares of cpu and memory in use.
func evenness(milliCPU, memory int64, n *node) int64 {
	if n.alloc.milliCPU == 0 || n.alloc.memory == 0 {
		return maxScore
	}
	cpu := min(float64(milliCPU)/float64(n.alloc.milliCPU), 1)
	mem := min(float64(memory)/float64(n.alloc.memory), 1)
	return int64((1 - math.Abs((cpu-mem)/2)) * maxScore)
}
