EPOCHS=100
yolo classify train data="$1" model="$(dirname "$0")/ultralytics_mobilenet.yaml" epochs=$EPOCHS imgsz=224 project="$2" name=run device=cpu
