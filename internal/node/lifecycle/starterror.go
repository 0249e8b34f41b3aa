package lifecycle

import "time"

// ConfigRetry is how long a container whose configuration cannot be made (a missing Secret, a failed create) waits for another try.
const ConfigRetry = 10 * time.Second

// StartError is a failure to start a container, with the reason its status shows.
type StartError struct {
	Reason, Message string
	// Retry is how long to wait before the next try.
	Retry time.Duration
}

func (e *StartError) Error() string { return e.Message }
