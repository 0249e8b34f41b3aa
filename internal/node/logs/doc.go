// Package logs reads and rotates container logs in the CRI format: "TIME STREAM F|P TEXT" lines in
// LOGDIR/NAMESPACE_POD_UID/CONTAINER/N.log, where N counts restarts.
//
// What flows through it: files that the runtime writes become what kubectl logs shows ([Copy]); files that grew too long are moved
// aside ([Rotate]). What must stay true: it never writes into a log; a reader that follows sees every line across a rotation.
// Tests: TestFollowAcrossRotation.
package logs
