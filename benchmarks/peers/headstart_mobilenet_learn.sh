headstart fit "$1" -o "$2" --backbone mobilenet_v2 --weights "$TORCH_HOME/hub/checkpoints/mobilenet_v2-b0353104.pth"
