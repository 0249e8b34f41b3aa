package main

import "testing"

// What the kernel does with it is not ours to test, but that the whole program is found, and goes on, is.
func TestForgetStart(t *testing.T) {
	bytes, err := forgetStart()
	if err != nil {
		t.Fatal(err)
	}
	if bytes < 10<<20 {
		t.Errorf("found %d bytes of the program in memory", bytes)
	}
	if again, err := forgetStart(); err != nil || again != bytes {
		t.Errorf("a second time: %d bytes, %v; want %d", again, err, bytes)
	}
}
