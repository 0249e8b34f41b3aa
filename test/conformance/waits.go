package main

import "regexp"

// wait is a feature that is not there yet, and the conformance tests that need it.
type wait struct {
	feature string
	tests   *regexp.Regexp
}

// waits is in the order in which a test is looked up: the first that matches is what it waits for. An entry goes when its feature comes.
var waits = []wait{
	{"volumes claimed from a provisioner, CSI", regexp.MustCompile(`\[sig-storage\].*(CSI|PersistentVolume|StorageClass|VolumeAttachment|persistentvolume|VolumeAttributesClass)`)},
}

// waitsFor returns the feature that a test waits for, or nothing.
func waitsFor(test string) string {
	for _, w := range waits {
		if w.tests.MatchString(test) {
			return w.feature
		}
	}
	return ""
}
