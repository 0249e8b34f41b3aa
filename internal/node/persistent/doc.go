// Package persistent gives pods the volumes of their PersistentVolumeClaims.
//
// What flows through it: a pod's persistentVolumeClaim and ephemeral volumes lead to claims and PersistentVolumes, of which it is checked
// whether the pod may have them ([Resolve]); each becomes a mount, or a block device, below DATA/pods/UID/claims/NAME ([Mounter.Mount]), with a
// file that says which volume it is ([Record]), and is given back when the pod ends ([Mounter.Release]).
//
// What must stay true: a record is there before the mount, so that whoever comes after an agent that was killed finds what it left and who
// uses what (TestRecordsComeFirst); a mount point is removed as an empty directory alone, so that no data goes with it
// (TestAMountPointTakesNoDataWithIt); why a pod waits is said in the kubelet's words (TestWhyAPodWaits).
package persistent
