// Package plugins lets drivers register with the agent as they do with a kubelet: each puts a socket into a directory, says there what it is and
// where it is called, and is handed to who deals with its kind.
//
// Drivers are made for a kubelet, whose directory is /var/lib/kubelet ([Seen]). The agent's is DATA/kubelet ([Root]), so that several nodes fit
// on a machine and pods that mount the directory see nothing of the agent's own. Where a pod mounts /var/lib/kubelet or something below it, it
// gets the agent's ([Root.Host]); a driver in such a pod names paths as it sees them, and is told paths as it sees them ([Root.For]).
//
// What flows through it: sockets appear and vanish in DATA/kubelet/plugins_registry ([Registry.Run]). What must stay true: a driver is handed over
// once and taken back once, by its socket, and one that could not be asked is asked again (TestRegistry); a path means the same file to agent and
// driver (TestPathsOfDrivers).
package plugins
