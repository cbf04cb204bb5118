#!/bin/sh
# TensorBoard of every training run of the lake, below /tensorboard/. It walks its folder all the time, and a lake has
# millions of files, so it is given a folder of links to just the runs' own: RUN/STAGE/ID.
#
#   OV_LAKE, OV_TENSORBOARD_HOST (127.0.0.1), OV_TENSORBOARD_PORT (6006), OV_TENSORBOARD_LINKS (/tmp/tensorboard)
set -eu
links=${OV_TENSORBOARD_LINKS:-/tmp/tensorboard}
mkdir -p "$links"

link() {
    find "$links" -type l ! -exec test -e {} \; -exec rm {} +
    for events in "$OV_LAKE"/*/projector/*/tensorboard "$OV_LAKE"/*/checkpoint/*/tensorboard; do
        run=$(dirname "$events")
        [ -d "$events" ] && [ ! -L "$run" ] || continue
        place=$links/${run#"$OV_LAKE"/}
        [ -e "$place" ] || { mkdir -p "$(dirname "$place")" && ln -s "$events" "$place"; }
    done
}

link
# Ends with TensorBoard, which keeps this process's id.
main=$$
(while kill -0 "$main" 2>/dev/null; do sleep 30; link; done) &
exec tensorboard --logdir "$links" --path_prefix /tensorboard --load_fast false \
    --host "${OV_TENSORBOARD_HOST:-127.0.0.1}" --port "${OV_TENSORBOARD_PORT:-6006}"
