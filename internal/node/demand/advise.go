package demand

import "time"

const (
	// A request for processor time fits when it covers all but the highest twentieth of the minutes, one for memory when it covers all of them:
	// too little of the one is slow, of the other deadly. Both with some room.
	busyShare = 0.95
	room      = 1.15
	// enough is how many samples advice should be founded on: an hour of one container.
	enough = 60
	// Requests are not advised to be less than this.
	leastCPU    = 5       // thousandths of a processor
	leastMemory = 8 << 10 // KiB
)

// Advice is which requests fit what was used, and from what that follows.
type Advice struct {
	CPU    int64 // thousandths of a processor
	Memory int64 // KiB

	MedianCPU, BusyCPU, MaxCPU int64 // thousandths of a processor: of half of the minutes, of all but the highest twentieth, of all
	MedianMemory, MaxMemory    int64 // KiB
	Samples                    uint64
	Over                       time.Duration
	// Thin reports that there are too few samples to rely on it.
	Thin bool
}

// Advise says which requests fit a use.
func (u *Use) Advise() Advice {
	a := Advice{
		MedianCPU: u.CPU.Quantile(0.5), BusyCPU: u.CPU.Quantile(busyShare), MaxCPU: u.CPU.Max,
		MedianMemory: u.Memory.Quantile(0.5), MaxMemory: u.Memory.Max,
		Samples: u.CPU.Total(), Over: u.Until.Sub(u.Since) + Period,
	}
	a.CPU = max(leastCPU, withRoom(a.BusyCPU))
	a.Memory = max(leastMemory, withRoom(a.MaxMemory))
	a.Thin = a.Samples < enough
	return a
}

func withRoom(v int64) int64 { return int64(float64(v)*room + 0.5) }
