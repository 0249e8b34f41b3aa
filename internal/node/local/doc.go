// Package local keeps the volumes of StorageClass knarr-local on the disk of its node: a directory for each.
//
//	DATA/volumes/HANDLE/volume.json   whose it is
//	DATA/volumes/HANDLE/data          its files, or
//	DATA/volumes/HANDLE/disk          its file system, or raw device, in a file of its size
//	DATA/volumes/.new-*, .gone-*      what is being made and what is being removed
//
// What flows through it: a PersistentVolume that a pod needs becomes a directory ([Store.Ensure]); one that is being deleted, that nothing
// protects and no pod uses loses it, and then the finalizer that waited for that ([Keeper]).
//
// What must stay true: a directory under a handle is complete, and one that is removed has no handle any more, whenever the agent dies
// (TestWhatWasBegunIsSwept); no handle leads out of the directory (TestHandlesStayInside); what pods use is not removed
// (TestTheDirectoryGoesWithItsVolume); a volume that is lost is not taken for a new one (TestALostVolumeIsNotMadeAnew); data of which the API knows nothing is spoken of, never removed (TestOrphansAreKept).
package local
