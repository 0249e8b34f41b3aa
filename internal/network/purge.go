package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/cni"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/overlay"
)

// Purge removes everything that the instance's network made in this network namespace: links of pods and to other nodes, the nftables tables,
// addresses, routes, changed sysctls and its files under dataDir. It works without any record (only sysctls need one), may run again, and does not stop
// at an error. Nothing of the instance may be running.
func Purge(dataDir, instance string) error {
	dir := filepath.Join(dataDir, "network")
	errs := []error{cni.PurgeLinks(instance), purgeTable(TableName(instance)), purgeTable(GuardTableName(instance)), purgeLoopback(instance),
		overlay.Purge(instance, routeProtocol, routePriority(instance))}
	last, err := lastInstance()
	errs = append(errs, err)
	if err == nil && last {
		// Another instance in this namespace still needs forwarding.
		errs = append(errs, restoreSysctls(dir))
	}
	errs = append(errs, os.RemoveAll(dir), purgeResults(instance), os.Remove(confFile(dataDir)))
	if err := errors.Join(ignoreMissing(errs)...); err != nil {
		return fmt.Errorf("removing the network: %w", err)
	}
	return nil
}

func ignoreMissing(errs []error) []error {
	for i, err := range errs {
		if errors.Is(err, os.ErrNotExist) {
			errs[i] = nil
		}
	}
	return errs
}

func purgeTable(name string) error {
	var errs []error
	for _, family := range []nft.Family{nft.IPv4, nft.IPv6} {
		errs = append(errs, func() error {
			table, err := nft.Open(nft.Table{Family: family, Name: name})
			if err != nil {
				return err
			}
			defer table.Close()
			if exists, err := table.Exists(); err != nil || !exists {
				return err
			}
			var tx nft.Transaction
			tx.Remove()
			return table.Run(&tx)
		}())
	}
	return errors.Join(errs...)
}

// lastInstance reports whether no instance has a table in this network namespace.
func lastInstance() (bool, error) {
	for _, family := range []nft.Family{nft.IPv4, nft.IPv6} {
		names, err := nft.Tables(family)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			if name == TableName("") || strings.HasPrefix(name, TableName("")+"-") {
				return false, nil
			}
		}
	}
	return true, nil
}

// purgeLoopback removes the instance's addresses and Service routes from lo.
func purgeLoopback(instance string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	var errs []error
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	errs = append(errs, err)
	for _, a := range addrs {
		if a.Label == addressLabel(instance) {
			errs = append(errs, netlink.AddrDel(lo, &a))
		}
	}
	filter := &netlink.Route{LinkIndex: lo.Attrs().Index, Protocol: routeProtocol}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	errs = append(errs, err)
	for _, r := range routes {
		if r.Priority == routePriority(instance) {
			errs = append(errs, netlink.RouteDel(&r))
		}
	}
	return errors.Join(errs...)
}

// restoreSysctls puts back what setSysctl changed.
func restoreSysctls(dir string) error {
	saved, err := readSysctls(dir)
	if err != nil {
		return err
	}
	var errs []error
	for key, value := range saved {
		errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0))
	}
	return errors.Join(errs...)
}

// resultCache is where libcni, inside of the runtime, keeps the results of ADD; it has no setting for that.
const resultCache = "/var/lib/cni/results"

// purgeResults removes the instance's cached results, and the folders once they are empty.
func purgeResults(instance string) error {
	entries, err := os.ReadDir(resultCache)
	if err != nil {
		return err
	}
	// NETWORK-SANDBOX-INTERFACE; one instance's name may begin another's.
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(networkName(instance)) + "-[0-9a-f]{64}-[^-]+$")
	var errs []error
	for _, e := range entries {
		if ours.MatchString(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(resultCache, e.Name())))
		}
	}
	for _, dir := range []string{resultCache, filepath.Dir(resultCache)} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// shortHash names the instance in places that have room for a few characters.
func shortHash(instance string) string {
	sum := sha256.Sum256([]byte(instance))
	return cni.LinkPrefix + hex.EncodeToString(sum[:4])
}

// routePriority tells the Service routes of instances in one network namespace apart.
func routePriority(instance string) int {
	sum := sha256.Sum256([]byte(instance))
	return 1<<20 | int(sum[0])<<8 | int(sum[1])
}
