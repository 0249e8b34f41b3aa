package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Details are what monitoring shows of a control group besides its Usage. What the group does not have is zero.
type Details struct {
	Path         string // "/knarr/kubepods/burstable/podUID/ID"
	User, System uint64 // ns of processor time
	Cache, Swap  uint64 // bytes
	// Shares are version 1's, converted in version 2. Quota is 0 where there is none; it and Period are microseconds.
	Shares, Quota, Period uint64
	// Periods in which something ran under the quota, those in which the quota was used up, and how long that held up, ns.
	Periods, Throttled, ThrottledTime         uint64
	MemoryLimit, MemoryReservation, SwapLimit uint64 // bytes
	Disks                                     []Disk
}

// Disk is what a group read from and wrote to one device.
type Disk struct {
	Device                                 string // "8:0"
	Reads, Writes, ReadBytes, WrittenBytes uint64
}

// unlimited is version 1's largest limit of memory, the largest number of whole pages, and a little less.
const unlimited = 1 << 62

// Details returns those of a container of a pod, or of the pod itself where container is "".
func (m *Manager) Details(uid, container string) (Details, error) {
	group, err := m.find(uid)
	if err != nil {
		return Details{}, err
	}
	group = filepath.Join(group, container)
	if m.v2 {
		return m.detailsV2(group)
	}
	return m.detailsV1(group)
}

func (m *Manager) detailsV1(group string) (Details, error) {
	file := func(controller, name string) string { return filepath.Join(m.mount, controller, group, name) }
	stat, err := fields(file("memory", "memory.stat"))
	if err != nil {
		return Details{}, err
	}
	const tick = 1e9 / 100 // USER_HZ
	used, _ := fields(file("cpuacct", "cpuacct.stat"))
	turns, _ := fields(file("cpu", "cpu.stat"))
	d := Details{
		Path: group, User: used["user"] * tick, System: used["system"] * tick, Cache: stat["total_cache"], Swap: stat["total_swap"],
		Shares: orZero(file("cpu", "cpu.shares")), Quota: orZero(file("cpu", "cpu.cfs_quota_us")), Period: orZero(file("cpu", "cpu.cfs_period_us")),
		Periods: turns["nr_periods"], Throttled: turns["nr_throttled"], ThrottledTime: turns["throttled_time"],
		MemoryLimit:       limit(file("memory", "memory.limit_in_bytes")),
		MemoryReservation: limit(file("memory", "memory.soft_limit_in_bytes")),
		SwapLimit:         limit(file("memory", "memory.memsw.limit_in_bytes")),
	}
	return d, errors.Join(
		d.disksV1(file("blkio", "blkio.throttle.io_serviced_recursive"), func(k *Disk) (*uint64, *uint64) { return &k.Reads, &k.Writes }),
		d.disksV1(file("blkio", "blkio.throttle.io_service_bytes_recursive"), func(k *Disk) (*uint64, *uint64) { return &k.ReadBytes, &k.WrittenBytes }),
	)
}

// disksV1 reads lines as "8:0 Read 4096" into what of a disk they are about.
func (d *Details) disksV1(path string, into func(*Disk) (read, written *uint64)) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the controller is not there
	}
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		read, written := into(d.disk(words[0]))
		n, _ := strconv.ParseUint(words[2], 10, 64)
		switch words[1] {
		case "Read":
			*read = n
		case "Write":
			*written = n
		}
	}
	return err
}

// disk returns the entry of a device, which is added if there is none.
func (d *Details) disk(device string) *Disk {
	for i := range d.Disks {
		if d.Disks[i].Device == device {
			return &d.Disks[i]
		}
	}
	d.Disks = append(d.Disks, Disk{Device: device})
	return &d.Disks[len(d.Disks)-1]
}

func (m *Manager) detailsV2(group string) (Details, error) {
	file := func(name string) string { return filepath.Join(m.mount, group, name) }
	stat, err := fields(file("memory.stat"))
	if err != nil {
		return Details{}, err
	}
	cpu, _ := fields(file("cpu.stat"))
	d := Details{
		Path: group, User: cpu["user_usec"] * 1000, System: cpu["system_usec"] * 1000, Cache: stat["file"], Swap: orZero(file("memory.swap.current")),
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * 1000,
		MemoryLimit: limit(file("memory.max")), MemoryReservation: limit(file("memory.low")), SwapLimit: limit(file("memory.swap.max")),
	}
	if weight := orZero(file("cpu.weight")); weight > 0 {
		d.Shares = 2 + (weight-1)*262142/9999 // the mapping of setV2, back
	}
	quota, _ := os.ReadFile(file("cpu.max"))
	if words := strings.Fields(string(quota)); len(words) == 2 {
		d.Quota, _ = strconv.ParseUint(words[0], 10, 64) // "max" is no number
		d.Period, _ = strconv.ParseUint(words[1], 10, 64)
	}
	io, _ := os.ReadFile(file("io.stat"))
	for line := range strings.Lines(string(io)) {
		device, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		disk := Disk{Device: device}
		for pair := range strings.FieldsSeq(rest) {
			name, text, _ := strings.Cut(pair, "=")
			n, _ := strconv.ParseUint(text, 10, 64)
			switch name {
			case "rios":
				disk.Reads = n
			case "wios":
				disk.Writes = n
			case "rbytes":
				disk.ReadBytes = n
			case "wbytes":
				disk.WrittenBytes = n
			}
		}
		d.Disks = append(d.Disks, disk)
	}
	return d, nil
}

// orZero reads a number, 0 where there is none ("-1", "max").
func orZero(path string) uint64 {
	n, err := number(path)
	if err != nil {
		return 0
	}
	return n
}

// limit reads a limit in bytes, 0 where there is none.
func limit(path string) uint64 {
	if n := orZero(path); n < unlimited {
		return n
	}
	return 0
}
