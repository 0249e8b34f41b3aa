package runtime

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// IsNotFound reports whether err says that the container, sandbox or image named is not there.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// IsUnavailable reports whether err says that the runtime cannot be reached now; the call may be tried again.
func IsUnavailable(err error) bool { return status.Code(err) == codes.Unavailable }

// IsUnimplemented reports whether err says that the runtime does not know the call.
func IsUnimplemented(err error) bool { return status.Code(err) == codes.Unimplemented }

// IsDeadlineExceeded reports whether err says that time ran out: the caller's, or the one given to ExecSync.
func IsDeadlineExceeded(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
}
