package fair

// Bounds of what refused clients are told to wait, in seconds.
const (
	waitLeast = 1
	waitMost  = 32
)

// refusals decide how long refused clients should wait: twice as long when many are refused, a second less when few are, as TCP's
// windows shrink and grow. The zero value is one that has refused nobody.
type refusals struct {
	second int64           // of the last refusal
	counts [waitMost]int64 // by second, modulo its length
	beyond int64           // wait - waitLeast
	raised int64           // when wait was raised last
}

func (r *refusals) wait() int64 { return waitLeast + r.beyond }

// add counts a refusal in a second and returns how long the client should wait.
func (r *refusals) add(second int64) int {
	if second != r.second {
		wait := r.wait()
		recent := int64(0)
		for s := max(second-wait, 0); s < second; s++ {
			if s <= r.second && s > r.second-waitMost {
				recent += r.counts[s%waitMost]
			}
		}
		for s := max(r.second+1, second-waitMost+1); s <= second; s++ {
			r.counts[s%waitMost] = 0
		}
		r.second = second
		switch {
		case recent >= 3*wait && second-r.raised >= wait:
			r.beyond = min(2*wait, waitMost) - waitLeast
			r.raised = second
		case recent < wait && wait > waitLeast:
			r.beyond--
		}
	}
	r.counts[second%waitMost]++
	return int(r.wait())
}
