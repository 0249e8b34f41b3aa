package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// onDisk is a server whose data is on a small disk of its own.
type onDisk struct {
	t    *testing.T
	dir  string
	opts ServerOptions
	*kubernetes.Clientset
}

// smallDisk mounts one and starts a server there, with a hollow node.
func smallDisk(t *testing.T) *onDisk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("knarr-test", dir, "tmpfs", 0, "size=640m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := given(dir)
	o.Listen, o.HollowNodes, o.LogLevel = address, 1, "error"
	return &onDisk{t: t, dir: dir, opts: o}
}

// start starts the server and returns what ends it.
func (d *onDisk) start() (stop func()) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := RunServer(ctx, d.opts); err != nil {
			d.t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	d.t.Cleanup(stop)
	d.wait("the API", func() error {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(d.dir, "kubeconfig"))
		if err != nil {
			return err
		}
		config.QPS = -1
		if d.Clientset, err = kubernetes.NewForConfig(config); err != nil {
			return err
		}
		_, err = d.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return stop
}

// wait waits until check has no error any longer.
func (d *onDisk) wait(what string, check func() error) {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%s: %v", what, err)
		}
	}
}

// fill takes what is left of the disk, and returns the file that has it.
func (d *onDisk) fill() string {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "somebody-elses"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for had := int64(0); ; {
		var fs unix.Statfs_t
		if err := unix.Statfs(d.dir, &fs); err != nil {
			d.t.Fatal(err)
		}
		size := int64(fs.Bavail) * fs.Bsize
		if size == 0 {
			return f.Name()
		}
		switch err := unix.Fallocate(int(f.Fd()), 0, had, size); {
		case err == nil:
			had += size
		case !errors.Is(err, unix.ENOSPC):
			d.t.Fatal(err)
		}
	}
}

func (d *onDisk) create(name string) error {
	_, err := d.CoreV1().ConfigMaps("default").Create(d.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func (d *onDisk) read(path string) (string, error) {
	b, err := d.RESTClient().Get().AbsPath(path).DoRaw(d.t.Context())
	return string(b), err
}

// run makes a pod run on the hollow node.
func (d *onDisk) run(name string) {
	d.t.Helper()
	pods, now := d.CoreV1().Pods("default"), int64(0)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &now, Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	d.wait("creating a pod", func() error { _, err := pods.Create(d.t.Context(), pod, metav1.CreateOptions{}); return err })
	d.wait("a running pod", func() error { return running(pods.Get(d.t.Context(), name, metav1.GetOptions{})) })
}

func running(p *corev1.Pod, err error) error {
	if err == nil && p.Status.Phase != corev1.PodRunning {
		err = fmt.Errorf("pod %s is %s", p.Name, p.Status.Phase)
	}
	return err
}

// elect stands for leader, with a lease that is renewed each 500 ms, until the test ends.
func (d *onDisk) elect() *leaderelection.LeaderElector {
	d.t.Helper()
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: "operator"}, Client: d.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: "me"}},
		LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 500 * time.Millisecond, Name: "operator",
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(ctx) })
	d.t.Cleanup(func() { cancel(); wg.Wait() })
	return e
}

// TestAServerOnAFullDisk is what people and programs see of one: it reads, watches, renews, evicts and deletes, starts, and goes on when there is room.
func TestAServerOnAFullDisk(t *testing.T) {
	d := smallDisk(t)
	stop := d.start()
	ctx := t.Context()
	d.run("kept")
	d.run("evicted")
	d.run("deleted")
	if err := d.create("before"); err != nil {
		t.Fatal(err)
	}
	leader := d.elect()
	d.wait("a leader", func() error {
		if !leader.IsLeader() {
			return errors.New("nobody leads")
		}
		return nil
	})
	leases, err := d.CoordinationV1().Leases("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer leases.Stop()
	others := d.fill()
	d.wait("the refusal of a write", func() error {
		if err := d.create("refused"); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), d.dir) || !strings.Contains(err.Error(), "MB left") {
			_ = d.CoreV1().ConfigMaps("default").Delete(ctx, "refused", metav1.DeleteOptions{}) // it came while there was still room
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	if list, err := d.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) < 1 {
		t.Errorf("listing: %v %v", list, err)
	}
	for end := time.After(5 * time.Second); leader.IsLeader(); { // longer than a lease lasts that is not renewed
		select {
		case e := <-leases.ResultChan():
			if e.Object == nil {
				t.Fatal("the watch has ended")
			}
			continue
		case <-end:
		}
		break
	}
	if !leader.IsLeader() {
		t.Error("a leader has lost its lease")
	}
	d.wait("the eviction", func() error {
		err := d.CoreV1().Pods("default").EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "evicted"}})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there, %v", err)
	})
	if err := d.CoreV1().Pods("default").Delete(ctx, "deleted", metav1.DeleteOptions{}); err != nil {
		t.Errorf("deleting: %v", err)
	}
	if err := running(d.CoreV1().Pods("default").Get(ctx, "kept", metav1.GetOptions{})); err != nil {
		t.Error(err)
	}
	if body, err := d.read("/readyz"); err == nil || !strings.Contains(err.Error(), "[-]disk failed") {
		t.Errorf("/readyz: %s %v", body, err)
	}
	if body, err := d.read("/livez"); err != nil {
		t.Errorf("/livez: %s %v", body, err)
	}
	if body, err := d.read("/metrics"); err != nil || !strings.Contains(body, "\nknarr_storage_read_only 1\n") || !strings.Contains(body, "\nknarr_storage_free_bytes ") {
		t.Errorf("/metrics: %v, without the disk's", err)
	}
	stop()
	d.start()
	if err := running(d.CoreV1().Pods("default").Get(ctx, "kept", metav1.GetOptions{})); err != nil {
		t.Errorf("started on a full disk: %v", err)
	}
	if err := d.create("refused"); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("started on a full disk, it takes a write: %v", err)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	d.wait("writing once there is room", func() error { return d.create("after") })
	if body, err := d.read("/readyz"); err != nil {
		t.Errorf("/readyz: %s %v", body, err)
	}
}
