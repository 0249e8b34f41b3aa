// Package loop makes block devices of files.
//
// What must stay true: a file has one device however often it is asked for, and the kernel, not a record, says which (found in /sys), so
// that an agent that was killed finds it again; a device for a mount goes with its last mount. Tests: TestOneDevicePerFile,
// TestDetachBelow, TestADeviceGoesWithItsLastUse.
package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tries is how often a device that another process took first is asked for again.
const tries = 32

// loopMajor is the number of loop devices (Documentation/admin-guide/devices.txt of Linux).
const loopMajor = 7

// Attach returns the device of a file, made if it has none. passing devices end with their last use - the file returned is one - and others
// stay until they are detached.
func Attach(file string, passing bool) (*os.File, error) {
	for range tries {
		if dev, err := Find(file); err != nil {
			return nil, err
		} else if dev != "" {
			f, err := os.OpenFile(dev, os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			if again, err := Find(file); err == nil && again == dev { // it did not end meanwhile
				return f, nil
			}
			f.Close()
			continue
		}
		f, err := attach(file, passing)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
			continue // somebody else took the device that was free
		}
		if err != nil {
			return nil, fmt.Errorf("a loop device for %s: %w", file, err)
		}
		return f, nil
	}
	return nil, fmt.Errorf("a loop device for %s: others take each one that is free", file)
}

// attach takes a device that is free.
func attach(file string, passing bool) (*os.File, error) {
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	path := "/dev/loop" + strconv.Itoa(n)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) { // no udev, and /dev is no devtmpfs
		if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	cfg := &unix.LoopConfig{Fd: uint32(back.Fd())}
	copy(cfg.Info.File_name[:], filepath.Base(file))
	if passing {
		cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), cfg); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	// Else each page would be in memory twice. Some file systems below cannot.
	_ = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_DIRECT_IO, 1)
	return dev, nil
}

// Find returns the path of a file's device; "" for none.
func Find(file string) (string, error) {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", err
	}
	dev := ""
	err = each(func(path, backing string) {
		if backing == real {
			dev = path
		}
	})
	return dev, err
}

// Detach ends the device of a file, if it has one. A device in use ends with that use.
func Detach(file string) error {
	dev, err := Find(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && dev == "" {
		return nil
	}
	if err != nil {
		return err
	}
	return detach(dev)
}

// DetachBelow ends the devices of all files below dir, also of those that were deleted meanwhile.
func DetachBelow(dir string) error {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var errs []error
	err := each(func(path, backing string) {
		if strings.HasPrefix(backing, dir+"/") {
			errs = append(errs, detach(path))
		}
	})
	return errors.Join(append(errs, err)...)
}

func detach(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		err = nil // it ended by itself
	}
	if err != nil {
		err = fmt.Errorf("detaching %s: %w", dev, err)
	}
	return errors.Join(err, f.Close())
}

// each visits the devices that have a file. The kernel says " (deleted)" behind the name of one that is gone.
func each(visit func(dev, backing string)) error {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, f := range files {
		backing, err := os.ReadFile(f)
		if err != nil {
			continue // it ended meanwhile
		}
		dev := filepath.Base(filepath.Dir(filepath.Dir(f)))
		visit("/dev/"+dev, strings.TrimSuffix(strings.TrimSuffix(string(backing), "\n"), " (deleted)"))
	}
	return nil
}
