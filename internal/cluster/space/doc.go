// Package space looks after the room that the cluster's data has on its disk. etcd ends its process when a write fails, so writes have
// to be refused before the disk is full.
//
// What flows through it: whoever writes asks [Guard.Admit], which measures at most every tenth of a second; [Next] decides how much may
// still be written. While room is scarce only what is essential may - leases, statuses, deletions - so that nodes live and room can be made;
// without any room nothing may. What must stay true: reads are never refused; what etcd needs for its next writes belongs to its files already,
// however full others make the disk (TestTheDatabaseOwnsTheBlocksOfItsNextWrites); once there is room, writing goes on by itself
// (TestWritesGoOnOnceThereIsRoom).
package space
