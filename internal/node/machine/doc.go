// Package machine measures the machine that a node is: its capacity, disk, memory and processes, what it is called, and its traffic.
//
// What flows through it: figures of /proc, /sys and file systems, read when somebody asks. What must stay true: it keeps nothing, and
// a figure that cannot be read is left out or an error, never a guess (TestWhatCannotBeReadIsLeftOut).
package machine
