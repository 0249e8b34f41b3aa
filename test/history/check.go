package history

import (
	"errors"
	"fmt"
	"strings"
)

// mostFailures is how many failures are told in full: one cause usually has many.
const mostFailures = 12

// verdict gathers what is wrong.
type verdict struct {
	failures []string
	more     int
}

func (v *verdict) fail(format string, args ...any) {
	if len(v.failures) >= mostFailures {
		v.more++
		return
	}
	v.failures = append(v.failures, fmt.Sprintf(format, args...))
}

// Check returns an error that tells everything in the history which should not be, or nil.
func Check(h *History) error {
	v := &verdict{}
	t := newTruth(h, v)
	t.checkOrder()
	t.checkDeletions()
	t.checkFollowers()
	t.checkLinear()
	if len(v.failures) == 0 {
		return nil
	}
	text := "the history does not hold:\n  " + strings.Join(v.failures, "\n  ")
	if v.more > 0 {
		text += fmt.Sprintf("\n  and %d more", v.more)
	}
	return errors.New(text)
}
