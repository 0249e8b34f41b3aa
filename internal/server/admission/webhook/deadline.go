package webhook

import "time"

// kept is what webhooks leave of a write's time for the write itself.
const kept = 2 * time.Second

// share returns how long a webhook may take of the time that is left: as long as it says. Where its failure is passed over it
// leaves as much for each of those that are asked after it, so that one which hangs does not take the write along.
func share(said, left time.Duration, ignore bool, after int) time.Duration {
	if ignore {
		if fair := (left - kept) / time.Duration(after+1); fair > 0 && (said == 0 || fair < said) {
			return fair
		}
	}
	if said == 0 || said > left {
		return max(left, 0)
	}
	return said
}
