// Package volume makes a pod's volumes on the node's disk and says how containers mount them.
//
// What flows through it: a pod's spec.volumes and the objects they name ([Source]) become directories, tmpfs mounts and files
// below DATA/pods/UID, secret ones below DATA/pods-memory/UID; container volumeMounts become CRI mounts. What must stay true: files of ConfigMaps, Secrets and tokens change
// all at once (a symlink swap), so that no process sees half an update; everything a pod left is found again by listing the
// directory; removing never crosses a mount. Tests: TestWriteFilesSwapsAllAtOnce, TestSecretsStayInMemory,
// TestSubPathStaysInside.
package volume
