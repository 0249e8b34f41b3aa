package pod

import (
	"testing"
)

func TestUserNamespaceBlocks(t *testing.T) {
	dir := t.TempDir()
	var u userNamespaces
	u.load(dir)
	a, err1 := u.block("a")
	b, err2 := u.block("b")
	again, _ := u.block("a")
	if err1 != nil || err2 != nil || a == b || a != again || a == 0 {
		t.Error(a, b, again, err1, err2)
	}
	var after userNamespaces // the agent was restarted
	after.load(dir)
	if n, _ := after.block("b"); n != b {
		t.Errorf("block %d became %d", b, n)
	}
	after.release("b")
	if n, _ := after.block("c"); n != b {
		t.Errorf("block %d was not given out again: %d", b, n)
	}
}
