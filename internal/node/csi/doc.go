// Package csi gives pods the volumes of drivers that speak the container storage interface
// (https://github.com/container-storage-interface/spec), as a kubelet does.
//
//	DATA/kubelet/plugins/kubernetes.io/csi/DRIVER/HASH/globalmount          where a volume is staged, once for all pods of the node
//	DATA/kubelet/pods/UID/volumes/kubernetes.io~csi/NAME/mount              where it is published for a pod
//	DATA/kubelet/plugins/kubernetes.io/csi/volumeDevices/{staging,publish}  the same for volumes that are devices
//
// What flows through it: drivers register ([Manager.Register]) and say which node they take this one for and what is near it, which goes into
// the CSINode and the Node; a volume is waited for until it is attached, staged and published ([Manager.Publish]), grows ([Manager.Expand]), and
// is taken back ([Manager.Unpublish]). Who uses what is written down by package persistent, before anything is asked of a driver.
//
// What must stay true: each step may be done again, whenever agent or driver died, and is (TestAgain); a volume is staged before it is
// published, and unstaged when the last pod has given it back (TestStagedOnce); no driver is told to publish what is not attached
// (TestNothingIsPublishedBeforeItIsAttached); what one driver publishes of itself stays when another changes (TestCSINode).
package csi
