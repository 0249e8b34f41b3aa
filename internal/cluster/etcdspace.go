package cluster

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/logutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/knarr-io/knarr/internal/cluster/space"
)

// guard returns what looks after the disk of e.
func (e *Etcd) guard(quota int64, lent bool) *space.Guard {
	s := e.server.Server
	return space.New(space.Config{
		Dir: e.cfg.Dir, Quota: quota, Segment: wal.SegmentSizeBytes, Lent: lent, Log: e.cfg.Log,
		Size:   func() int64 { return s.Backend().Size() },
		InUse:  func() int64 { return s.Backend().SizeInUse() },
		Shrink: e.shrink,
	})
}

// shrink rewrites the database without what it holds for nothing, and takes back etcd's word that there is no space (its NOSPACE
// alarm), which it would keep for ever.
func (e *Etcd) shrink() error {
	s := e.server.Server
	if err := s.Backend().Defrag(); err != nil {
		return err
	}
	for _, a := range s.Alarms() {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if _, err := e.client.AlarmDisarm(e.client.Ctx(), &clientv3.AlarmMember{MemberID: a.MemberID, Alarm: a.Alarm}); err != nil {
			return fmt.Errorf("disarming etcd's alarm: %w", err)
		}
	}
	return nil
}

// etcdLog is etcd's logger, which writes to a file that closeLog closes. What etcd ends the process for stands in the server's log, too.
func etcdLog(cfg EtcdConfig) (build func(*embed.Config) error, closeLog func(), _ error) {
	file, closeLog, err := zap.Open(filepath.Join(filepath.Dir(cfg.Dir), "etcd.log"))
	if err != nil {
		return nil, nil, fmt.Errorf("etcd's log: %w", err)
	}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(logutil.DefaultZapLoggerConfig.EncoderConfig), file, zap.ErrorLevel)
	logger := zap.New(lastWords{core, cfg, nil}, zap.AddCaller(), zap.ErrorOutput(file))
	return embed.NewZapLoggerBuilder(logger), closeLog, nil
}

// lastWords is a core that repeats what ends the process.
type lastWords struct {
	zapcore.Core
	cfg  EtcdConfig
	with []zapcore.Field
}

// With implements zapcore.Core.
func (l lastWords) With(fields []zapcore.Field) zapcore.Core {
	return lastWords{l.Core.With(fields), l.cfg, append(l.with[:len(l.with):len(l.with)], fields...)}
}

// Check implements zapcore.Core.
func (l lastWords) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return to.AddCore(e, l)
	}
	return to
}

// Write implements zapcore.Core.
func (l lastWords) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Level >= zapcore.PanicLevel {
		why := []string{e.Message}
		for _, f := range append(l.with[:len(l.with):len(l.with)], fields...) {
			if err, ok := f.Interface.(error); ok {
				why = append(why, err.Error())
			}
		}
		l.cfg.Log.Error("etcd cannot go on and ends this process", "dir", l.cfg.Dir, "why", strings.Join(why, ": "))
	}
	return l.Core.Write(e, fields)
}
