package services

import (
	"errors"
	"io/fs"
)

// isNotFound says that the kernel did not find what a netlink message named (ENOENT).
func isNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }
