// Package command runs commands in containers of the containerd that comes with Knarr, in place of its CRI: through the same task
// service, but with a rule of its own for when a command has ended.
//
// What flows through it: [Open] connects to containerd; [Runtime.ExecSync] is what probes and hooks call; [Runtime.Exec] gives the URL of a stream
// that is served in this process, to which [Runtime.Dial] connects. Everything else is the CRI's.
//
// Why: containerd's CRI takes a command for done when its output is closed. Whatever the command leaves behind may hold the output open, and
// then its code is replaced by a time-out; and the command's input ends when its output does, with what was to be read still on its way.
//
// What must stay true: a command that has ended has the code that it ended with, whatever holds its output
// (TestCodeOfACommandThatLeavesSomethingBehind); its input goes on until it ends itself or the input does (TestInputOutlivesOutput); what it
// wrote before it ended is not lost (TestOutputOfACommandIsWhole); nothing of a command is left in containerd when Close returns.
package command
